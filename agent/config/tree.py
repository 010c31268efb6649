"""The files below /etc/appliance as a whole: each read by its own module, then checked against each other.

Called with the content of the files by agent.host.configuration; knows paths only to name them in findings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Generic, TypeVar

from agent.config.appliance import read_appliance
from agent.config.common import check_appliance_name, check_network_name
from agent.config.document import Findings, Section, read_document
from agent.config.network import read_network
from agent.model.address import Address, Subnet
from agent.model.appliance import Appliance
from agent.model.configuration import AgentSettings, Configuration
from agent.model.errors import ConfigurationError, Finding
from agent.model.network import ROUTED_KINDS, Attachment, Network, reserved_addresses
from agent.model.traffic import Publication

_T = TypeVar("_T")
Chooser = Callable[[Mapping[str, Network]], Mapping[str, tuple[Subnet, ...]]]
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


def read_tree(files: ConfigurationFiles, choose: Chooser | None = None) -> Configuration:
    """The configuration, or ConfigurationError with every finding in every file.

    `choose` gives automatic networks their subnets. Without it they have none, and addresses in them cannot
    be checked.
    """
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
    _check_lans(networks)
    networks = _with_subnets(networks, choose)
    _check_attachments(appliances, networks)
    _check_peers(appliances)
    _check_publications(appliances, networks)
    _check_routed_traffic(appliances, networks)
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
    default_network, cores, host_names = "default", "", True
    for path, content in files.items():
        section = read_document(content, Findings(path))
        default_network = section.text("default-network", default=default_network, check=check_network_name)
        cores = section.text("cores", default=cores, check=_check_cores)
        host_names = section.flag("host-names", default=host_names)
        section.finish()
        found.extend(section.findings.items)
    return AgentSettings(default_network=default_network, cores=parse_cores(cores), host_names=host_names)


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


def _with_subnets(
    networks: Mapping[str, _Read[Network]], choose: Chooser | None
) -> dict[str, _Read[Network]]:
    chosen = choose({name: read.settings for name, read in networks.items()}) if choose else {}
    return {
        name: replace(read, settings=replace(read.settings, subnets=chosen[name]))
        if name in chosen
        else read
        for name, read in networks.items()
    }


def _check_subnets(networks: Mapping[str, _Read[Network]]) -> None:
    """Overlaps; networks that are part of the same LAN may share its subnets."""
    seen: list[tuple[Subnet, Network]] = []
    for read in networks.values():
        network = read.settings
        for subnet in network.subnets:
            for other, owner in seen:
                shared = network.lan and owner.lan
                if not shared and subnet.version == other.version and subnet.overlaps(other):
                    read.complain("subnets", f"{subnet} overlaps {other} of network “{owner.name}”")
            seen.append((subnet, network))


def _check_lans(networks: Mapping[str, _Read[Network]]) -> None:
    """An uplink can be in one bridge only, and a VLAN of it is one network."""
    owners: dict[tuple[str, int], str] = {}
    ours = {
        read.settings.bridge
        for read in networks.values()
        if read.settings.lan is None or read.settings.lan.uplink
    }
    for name, read in networks.items():
        network = read.settings
        if network.lan is None:
            continue
        if network.lan.bridge in ours:
            read.complain("bridge", f"{network.lan.bridge} is a bridge of the agent's own")
        owner = owners.setdefault((network.bridge, network.lan.vlan), name)
        if owner != name:
            what = network.lan.uplink or network.lan.bridge
            vlan = f"VLAN {network.lan.vlan} of {what}" if network.lan.vlan else what
            read.complain(
                "uplink" if network.lan.uplink else "bridge", f"{vlan} is network “{owner}” already"
            )


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
            _check_lan_attachment(read, attachment, network.settings)
            for claim in (*attachment.addresses, attachment.mac):
                if claim:
                    _claim(read, owners, network.settings.name, claim)
        _check_default_route(read, networks)


def _check_default_route(read: _Read[Appliance], networks: Mapping[str, _Read[Network]]) -> None:
    chosen = [attachment for attachment in read.settings.networks if attachment.default_route]
    if len(chosen) > 1:
        read.complain("network", "only one network can have the default route")
    for attachment in chosen:
        network = networks.get(attachment.network)
        if network and not network.settings.leads_out:
            read.complain("network", f"network “{attachment.network}” leads nowhere: no default route")


def _check_lan_attachment(read: _Read[Appliance], attachment: Attachment, network: Network) -> None:
    if network.lan is None:
        if attachment.vlan is not None:
            read.complain("network", f"network “{network.name}” has no VLANs: it is not a bridged one")
        return
    has = {address.version for address in attachment.addresses}
    for subnet in network.subnets:
        pooled = any(part.version == subnet.version for part in network.lan.pool)
        if subnet.version not in has and not pooled:
            read.complain(
                "network",
                f"network “{network.name}” has no pool to take an address from in {subnet}: give one",
            )


def _check_peers(appliances: Mapping[str, _Read[Appliance]]) -> None:
    for name, read in appliances.items():
        own = {attachment.network for attachment in read.settings.networks}
        for peer in read.settings.peers:
            other = appliances.get(peer)
            if peer == name:
                read.complain("peers", "it is its own peer")
            elif other is None:
                read.complain("peers", f"there is no appliance “{peer}”")
            elif not own & {attachment.network for attachment in other.settings.networks}:
                read.complain("peers", f"“{peer}” is in none of its networks")


def _check_publications(
    appliances: Mapping[str, _Read[Appliance]], networks: Mapping[str, _Read[Network]]
) -> None:
    """Ports of the host that two want, and those that can lead nowhere."""
    seen: list[tuple[Publication, _Read[Appliance]]] = []
    for read in appliances.values():
        if read.settings.publish and not _is_routed(read.settings, networks):
            kinds = " or ".join(ROUTED_KINDS)
            read.complain("publish", f"only what is in a {kinds} network can be published on the host")
        for one in read.settings.publish:
            for other, owner in seen:
                if one.collides(other):
                    place = _place(owner, "publish")
                    read.complain("publish", f"{one} is published by “{owner.settings.name}” too ({place})")
        seen += [(one, read) for one in read.settings.publish]


def _check_routed_traffic(
    appliances: Mapping[str, _Read[Appliance]], networks: Mapping[str, _Read[Network]]
) -> None:
    """What the host does not route it can neither keep from going anywhere nor count."""
    kinds = " or ".join(ROUTED_KINDS)
    for read in appliances.values():
        if _is_routed(read.settings, networks):
            continue
        for key, what, given in (
            ("egress", "it", read.settings.egress is not None),
            ("limits", "connections", read.settings.limits.connections > 0),
        ):
            if given:
                read.complain(key, f"{what}: only for what is in a {kinds} network")


def _is_routed(appliance: Appliance, networks: Mapping[str, _Read[Network]]) -> bool:
    """Whether it is on a network that the host routes; of one that does not exist others complain."""
    return any(
        one.network not in networks or networks[one.network].settings.is_routed for one in appliance.networks
    )


def _place(read: _Read[Appliance], key: str) -> str:
    value = read.section.get(key)
    line = value.node.start_mark.line + 1 if value else 1
    return f"{read.section.findings.path}:{line}"


def _check_addresses(read: _Read[Appliance], attachment: Attachment, network: Network) -> None:
    known = bool(network.subnets) or not network.automatic
    for address in attachment.addresses if known else ():
        subnet = network.subnet_of(address)
        if subnet is None:
            subnets = " and ".join(map(str, network.subnets)) or "no subnet"
            read.complain("network", f"{address} is outside of network “{network.name}” ({subnets})")
        elif address in reserved_addresses(network, subnet):
            read.complain(
                "network",
                f"{address} is taken: network, broadcast, gateway or the host's own address in {subnet}",
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
        place = _place(owner, "network")
        read.complain("network", f"{claim} is given to “{owner.settings.name}” too ({place})")
