"""The files below /etc/appliance as a whole: each read by its own module, then checked against each other.

Called with the content of the files by agent.host.configuration; knows paths only to name them in findings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, TypeVar

from agent.config.appliance import read_appliance
from agent.config.common import check_appliance_name, check_network_name
from agent.config.document import Findings, Section, read_document
from agent.config.network import read_network
from agent.model.appliance import Appliance
from agent.model.configuration import AgentSettings, Configuration
from agent.model.errors import ConfigurationError, Finding
from agent.model.network import Address, Attachment, Network, Subnet

_T = TypeVar("_T")
_CORES = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")


@dataclass(frozen=True, slots=True)
class ConfigurationFiles:
    """Content by path: agent.yaml and its fragments in the order they apply, networks and appliances by
    file."""

    agent: Mapping[str, bytes]
    networks: Mapping[str, bytes]
    appliances: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Read(Generic[_T]):
    """Settings with the section they came from, for findings that need two files to be seen."""

    settings: _T
    section: Section

    def complain(self, key: str, message: str) -> None:
        value = self.section.get(key)
        if value:
            value.complain(message)
        else:
            self.section.findings.add(self.section.node, message)


def read_tree(files: ConfigurationFiles) -> Configuration:
    """The configuration, or ConfigurationError with every finding in every file."""
    found: list[Finding] = []
    agent = _read_agent(files.agent, found)
    networks = _read_each(files.networks, found, check=check_network_name, read=read_network)
    appliances = _read_each(
        files.appliances,
        found,
        check=check_appliance_name,
        read=lambda name, section: read_appliance(name, section, default_network=agent.default_network),
    )
    _check_subnets(networks)
    _check_attachments(appliances, networks)
    for section in [
        *(read.section for read in networks.values()),
        *(read.section for read in appliances.values()),
    ]:
        found.extend(section.findings.items)
    if found:
        raise ConfigurationError(found)
    return Configuration(
        agent=agent,
        networks={name: read.settings for name, read in networks.items()},
        appliances={name: read.settings for name, read in appliances.items()},
    )


def _read_each(
    files: Mapping[str, bytes],
    found: list[Finding],
    *,
    check: Callable[[str], str],
    read: Callable[[str, Section], _T],
) -> dict[str, _Read[_T]]:
    result = {}
    for path in sorted(files):
        name = PurePath(path).stem
        wrong = check(name)
        if wrong:
            found.append(Finding(path, 0, 0, f"file name: {wrong}"))
            continue
        section = read_document(files[path], Findings(path))
        result[name] = _Read(read(name, section), section)
    return result


def _read_agent(files: Mapping[str, bytes], found: list[Finding]) -> AgentSettings:
    default_network, cores = "default", ""
    for path, content in files.items():
        section = read_document(content, Findings(path))
        default_network = section.text("default-network", default=default_network, check=check_network_name)
        cores = section.text("cores", default=cores, check=_check_cores)
        section.finish()
        found.extend(section.findings.items)
    return AgentSettings(default_network=default_network, cores=parse_cores(cores))


def _check_cores(text: str) -> str:
    valid = _CORES.fullmatch(text) and all(parse_cores(part) for part in text.split(","))
    return "" if valid else f"“{text}” is not a list of cores such as 0-3,6"


def parse_cores(text: str) -> tuple[int, ...]:
    """`0-1,3` → (0, 1, 3), the form of taskset(1) and of /sys/devices/system/cpu/online."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cores))


def _check_subnets(networks: Mapping[str, _Read[Network]]) -> None:
    seen: list[tuple[Subnet, str]] = []
    for name, read in networks.items():
        for subnet in read.settings.subnets:
            for other, owner in seen:
                if subnet.version == other.version and subnet.overlaps(other):
                    read.complain("subnets", f"{subnet} overlaps {other} of network “{owner}”")
            seen.append((subnet, name))


def _check_attachments(
    appliances: Mapping[str, _Read[Appliance]], networks: Mapping[str, _Read[Network]]
) -> None:
    owners: dict[tuple[str, Address | str], _Read[Appliance]] = {}
    for read in appliances.values():
        for attachment in read.settings.networks:
            network = networks.get(attachment.network)
            if network is None:
                known = ", ".join(networks) or "none"
                if attachment.network:
                    read.complain("network", f"there is no network “{attachment.network}”; known: {known}")
                continue
            _check_addresses(read, attachment, network.settings)
            for claim in (*attachment.addresses, attachment.mac):
                if claim:
                    _claim(read, owners, network.settings.name, claim)


def _check_addresses(read: _Read[Appliance], attachment: Attachment, network: Network) -> None:
    for address in attachment.addresses:
        subnet = next((subnet for subnet in network.subnets if address in subnet), None)
        if subnet is None:
            subnets = " and ".join(map(str, network.subnets)) or "no subnet"
            read.complain("network", f"{address} is outside of network “{network.name}” ({subnets})")
        elif address in {subnet.network_address, subnet.broadcast_address, network.gateway(subnet)}:
            read.complain(
                "network", f"{address} is taken: network, broadcast or the host's own address in {subnet}"
            )
    if len({address.version for address in attachment.addresses}) < len(attachment.addresses):
        read.complain("network", "at most one IPv4 and one IPv6 address for each network expected")


def _claim(
    read: _Read[Appliance],
    owners: dict[tuple[str, Address | str], _Read[Appliance]],
    network: str,
    claim: Address | str,
) -> None:
    owner = owners.setdefault((network, claim), read)
    if owner is not read:
        other = owner.section.get("network")
        line = other.node.start_mark.line + 1 if other else 1
        read.complain(
            "network",
            f"{claim} is given to “{owner.settings.name}” too ({owner.section.findings.path}:{line})",
        )
