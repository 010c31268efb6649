"""Rules of others, as far as they can be understood: whether they say anything of a network. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.common import parse_address, parse_subnet
from agent.model.network import Network
from agent.plan.ruleset import Json
from agent.plan.subnets import overlap_with


def speak_of(network: Network, rules: Json) -> bool:
    """Whether a table, as libnftables-json(5) has it, names the bridge of a network, by a pattern perhaps,
    or any of its addresses."""
    overlaps = overlap_with(network.subnets)
    return any(
        _matches(text, network.bridge) or ((subnet := parse_subnet(text)) is not None and overlaps(subnet))
        for text in _values(rules)
    )


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def _values(part: Json) -> Iterator[str]:
    """Every text in it; subnets and addresses are written as subnets."""
    if isinstance(part, str):
        yield f"{part}/{address.max_prefixlen}" if (address := parse_address(part)) else part
    elif isinstance(part, list):
        for one in part:
            yield from _values(one)
    elif isinstance(part, dict):
        if "prefix" in part:
            yield f"{part['prefix']['addr']}/{part['prefix']['len']}"
        else:
            for one in part.values():
                yield from _values(one)
