"""A host with the network of appliances and no guests: in place of each stands a network namespace with an
ordinary kernel, which can be made to send anything. Beyond the host lies one other machine, `outside`."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agent.config.tree import read_tree
from agent.host.netlink import Netlink
from agent.host.nftables import Firewall
from agent.model.assignments import Assignments
from agent.model.network import Port
from agent.model.traffic import Publication
from agent.plan.firewall import plan_firewall
from agent.plan.host import HostPlan, plan_host
from agent.plan.ports import plan_taps
from agent.plan.ruleset import Ruleset
from agent.plan.traffic import Guest
from tests.fakes.samples import sample_facts, sample_files, sample_inputs
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
HOST_6, OUTSIDE_6 = "2001:db8::1", "2001:db8::2"
NETWORKS = {"default": "kind: nat\nsubnets: [10.88.0.0/24, 'fd00:88::/64']\n"}
PATIENT_S, BRIEF_S = 5.0, 0.25
"""How long to wait for what is to come, and for what is not."""
# linux/if_ether.h
ETH_P_ALL = 0x0003


class Machine:
    """One other machine, with a cable to this one."""

    def __init__(self, name: str, namespace: OtherNetwork) -> None:
        self.name = name
        self.namespace = namespace
        self.port: Port | None = None

    def run(self, *arguments: str) -> str:
        """ip(8) there."""
        with self.namespace.entered():
            return ip(*arguments)

    def address(self, version: int = 4) -> str:
        """Its own address."""
        assert self.port
        return next(str(address) for address in self.port.addresses if address.version == version)

    def send(self, frame: bytes) -> None:
        """One frame, whatever it is."""
        with self.namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(frame)

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """A socket that has every frame that comes."""
        with self.namespace.entered():
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with raw:
            raw.bind(("eth0", ETH_P_ALL))
            yield raw


class Rack:
    """The host with all of it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.netlink = Netlink()
        stack.callback(self.netlink.close)
        self.firewall = Firewall()
        self.machines: dict[str, Machine] = {}
        self.outside = self.machine("outside", "up0")
        ip("link", "set", "lo", "up")
        for address in (f"{HOST}/24", f"{HOST_6}/64"):
            ip("address", "add", address, "dev", "up0", *(["nodad"] if ":" in address else []))
        for address in (f"{OUTSIDE}/24", f"{OUTSIDE_6}/64"):
            self.outside.run(
                "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else [])
            )

    def set_up(
        self,
        appliances: Mapping[str, Mapping[str, Any]],
        networks: Mapping[str, str] = NETWORKS,
        *,
        previous: Assignments | None = None,
    ) -> HostPlan:
        """Make it so, with a machine for each appliance that is new."""
        plan = host_plan(appliances, networks, previous=previous)
        for change in [*self.netlink.plan(plan.bridges, []), *self.firewall.plan(ruleset_of(plan))]:
            if "tun" not in str(change):
                change.apply()
        taps = {
            tap.name: tap
            for tap in plan_taps(
                {name: (one.appliance, one.ports) for name, one in plan.appliances.items()}, {}
            )
        }
        for name, one in plan.appliances.items():
            for port in one.ports:
                if name not in self.machines:
                    self._connect(name, port)
                tap = taps[port.tap]
                flags = {"isolated": tap.isolated, "hairpin": tap.hairpin}
                words = [word for key, flag in flags.items() for word in (key, "on" if flag else "off")]
                ip("link", "set", port.tap, "type", "bridge_slave", *words)
        return plan

    def _connect(self, name: str, port: Port) -> None:
        machine = self.machine(name, port.tap, mac=port.mac)
        machine.port = port
        ip("link", "set", port.tap, "master", port.network.bridge)
        for address in port.addresses:
            subnet = port.network.subnet_of(address)
            assert subnet
            nodad = ["nodad"] if address.version == 6 else []
            machine.run("address", "add", f"{address}/{subnet.prefixlen}", "dev", "eth0", *nodad)
            gateway = port.network.gateway(subnet)
            if gateway and port.default_route:
                machine.run(f"-{address.version}", "route", "add", "default", "via", str(gateway))

    def machine(self, name: str, link: str, *, mac: str = "") -> Machine:
        """A machine behind this link of the host."""
        namespace = OtherNetwork()
        self.stack.callback(namespace.close)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace.path)
        ip("link", "set", link, "up")
        machine = self.machines[name] = Machine(name, namespace)
        machine.run("link", "set", "lo", "up")
        if mac:
            machine.run("link", "set", "eth0", "address", mac)
        machine.run("link", "set", "eth0", "up")
        return machine


def host_plan(
    appliances: Mapping[str, Mapping[str, Any]],
    networks: Mapping[str, str],
    *,
    previous: Assignments | None = None,
) -> HostPlan:
    """The plan for appliances given by their settings but for the image."""
    files = sample_files(
        {name: {"image": "dns-nsd", **settings} for name, settings in appliances.items()}, networks=networks
    )
    configuration = read_tree(files)
    inputs = {name: sample_inputs() for name in appliances}
    return plan_host(
        configuration,
        inputs,
        host=sample_facts(),
        previous=previous or Assignments(),
        runtime_digest="r",
    )


def ruleset_of(plan: HostPlan, *, but: tuple[Publication, ...] = ()) -> Ruleset:
    """The rules of a plan."""
    guests = {
        name: Guest(
            one.appliance, one.ports, tuple(port for port in one.appliance.publish if port not in but)
        )
        for name, one in plan.appliances.items()
    }
    return plan_firewall(
        plan.networks, guests, bridge_macs={bridge.name: bridge.mac for bridge in plan.bridges}
    )


# --- connections

Where = Machine | None
"""A machine; None is this host."""


def _at(where: Where) -> contextlib.AbstractContextManager[None]:
    return where.namespace.entered() if where else contextlib.nullcontext()


@contextmanager
def tcp_server(where: Where, port: int, address: str = "::") -> Iterator[socket.socket]:
    """A server on a machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _at(where):
        server = socket.create_server(
            (address, port), family=family, dualstack_ipv6=address == "::", backlog=16
        )
    with server:
        server.settimeout(PATIENT_S)
        yield server


def reach(
    client: Where, address: str, port: int, server: socket.socket, *, timeout_s: float = PATIENT_S
) -> str | None:
    """Connect by TCP; the client's address as the server sees it, None where that does not come to be."""
    with _at(client):
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect((address, port))
        except OSError:
            return None
        accepted, peer = server.accept()
        accepted.close()
        return str(peer[0]).removeprefix("::ffff:")


def reaches(client: Where, address: str, port: int, server: socket.socket) -> bool:
    """Whether a TCP connection comes to be."""
    return reach(client, address, port, server) is not None


def is_kept_out(client: Where, address: str, port: int, server: socket.socket) -> bool:
    """Whether no TCP connection comes to be."""
    return reach(client, address, port, server, timeout_s=BRIEF_S) is None


# --- frames


def ethernet(destination: str, source: str, kind: int, content: bytes) -> bytes:
    """A frame; the type is a number of linux/if_ether.h."""
    return _mac(destination) + _mac(source) + struct.pack("!H", kind) + content


def arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """RFC 826."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + _mac(sender_mac) + socket.inet_aton(sender) + _mac(target_mac) + socket.inet_aton(target)


def udp(source: str, destination: str, source_port: int, port: int, content: bytes) -> bytes:
    """An IP packet of either version with a UDP datagram."""
    datagram = struct.pack("!HHHH", source_port, port, 8 + len(content), 0) + content
    return packet(source, destination, socket.IPPROTO_UDP, datagram, checksum_at=6)


def icmp6(source: str, destination: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message (RFC 4443); `body` follows the checksum."""
    return packet(source, destination, socket.IPPROTO_ICMPV6, bytes((kind, 0, 0, 0)) + body, checksum_at=2)


def packet(source: str, destination: str, protocol: int, content: bytes, *, checksum_at: int) -> bytes:
    """An IP packet; the checksum of what it carries is filled in."""
    if ":" in source:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
        pseudo = ends + struct.pack("!IHBB", len(content), 0, 0, protocol)
        header = struct.pack("!IHBB", 0x60000000, len(content), protocol, 255) + ends
    else:
        ends = socket.inet_aton(source) + socket.inet_aton(destination)
        pseudo = ends + struct.pack("!BBH", 0, protocol, len(content))
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, 64, protocol, 0) + ends
        header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    total = struct.pack("!H", _checksum(pseudo + content))
    return header + content[:checksum_at] + total + content[checksum_at + 2 :]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes(int(part, 16) for part in text.split(":"))
