"""The firewall of all appliances, as nftables rules. Pure; agent.host.nftables loads them.

    table bridge appliance     frames, where a guest's tap meets its bridge
        prerouting ─► ap-NAME  only its own MAC and addresses; no router, no DHCP server unless granted
        forward                to another guest only where they are peers
    table inet appliance       packets that the host routes
        prerouting, output     published ports
        postrouting            the host's address for what a nat network sends
        input                  guests to the host: only what is granted
        forward                out as the egress list says, in only what is published or routed

A packet of a guest has passed its own chain before anything else sees it, so that its addresses can be
believed. Everything else of the host is left alone: each base chain first asks whether a packet is ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agent.model.network import Network
from agent.plan.frames import bridge_table
from agent.plan.packets import inet_table
from agent.plan.ruleset import Ruleset
from agent.plan.traffic import Guest

NAME = "appliance"
TABLES = (("bridge", NAME), ("inet", NAME))


def plan_firewall(
    networks: Collection[Network], guests: Mapping[str, Guest], *, bridge_macs: Mapping[str, str]
) -> Ruleset:
    """The rules for these networks and guests; `bridge_macs` are those of our bridges, by name."""
    return bridge_table(NAME, guests, bridge_macs), inet_table(NAME, networks, guests)
