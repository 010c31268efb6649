"""The whole configuration, valid: what the agent is to bring about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.model.appliance import Appliance
from agent.model.network import Network


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """`/etc/appliance/agent.yaml` with its fragments. No cores means: every core the host has. `host_names`
    is whether the host's /etc/hosts has the appliances."""

    default_network: str = "default"
    cores: tuple[int, ...] = ()
    host_names: bool = True


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings by name, in the order of their names."""

    agent: AgentSettings
    networks: Mapping[str, Network]
    appliances: Mapping[str, Appliance]
