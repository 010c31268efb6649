"""Ways to connect a guest to its host, and what stands at the other end of each: a guest with iperf3 and
packets.c, or in its place another network namespace.

All of it lies in a network namespace of the benchmark's own, with a bridge as the agent makes one.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from agent.model.appliance import Isolation
from tests.bench.traffic import IPERF3_PORT
from tests.guest.uml import Descriptor, Guest, Machine, Options, Plan
from tests.kernel.conftest import OtherNetwork, own_namespaces
from tests.kernel.links import ip

BRIDGE, HOST = "br-bench", "10.99.0.1"
HOST_CORE, GUEST_CORE = 0, (os.cpu_count() or 1) - 1
_DIRECTORY = "/run/appliance"

# linux/if_tun.h, linux/if_ether.h, linux/ethtool.h, linux/sockios.h
_TUNSETIFF, _IFF_TAP_NO_PI = 0x400454CA, 0x1002
_ETH_P_ALL = 0x0003
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


class Transport(StrEnum):
    """Documentation/virt/uml/user_mode_linux_howto_v2.rst."""

    FD = "fd"
    """A tap's descriptor, one packet for each call: what launch.c hands over."""
    TAP = "tap"
    """A tap by its name, with vnet headers: whole segments of TCP and no checksums."""
    RAW = "raw"
    """A packet socket on one end of a veth pair: vnet headers, and many packets for each call."""
    PACKET = "packet"
    """The descriptor of such a socket: many packets for each call and no vnet headers."""


class Place(NamedTuple):
    """Which of the bench's machines: the one that answers, or the one that calls it."""

    number: int
    core: int

    @property
    def address(self) -> str:
        """Its address."""
        return f"10.99.0.{self.number}"


NEAR, FAR = Place(3, HOST_CORE), Place(2, GUEST_CORE)


class Tap:
    """A tap that is attached to."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(self._descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))

    def fileno(self) -> int:
        """For whom it is inherited by."""
        return self._descriptor

    def close(self) -> None:
        """The tap goes with it."""
        os.close(self._descriptor)


@contextmanager
def bench_host() -> Iterator[None]:
    """This process is a host with a bridge for the block."""
    with own_namespaces():
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge", "forward_delay", "0", "stp_state", "0")
        ip("link", "set", BRIDGE, "up")
        ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
        yield


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started in the block runs on that core and no other."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, kw_only=True)
class Appliance(Machine):
    """Guests of which `devices` are only handed over; `arguments` say what becomes of them."""

    packets: Path

    def _arguments(self, directory: Path, *, notify: socket.socket, options: Options) -> list[str]:
        without = options.copy()
        without["devices"] = ()
        return super()._arguments(directory, notify=notify, options=without)

    @contextmanager
    def guest(
        self, transport: Transport, isolation: Isolation, place: Place = FAR, script: str = ""
    ) -> Iterator[Guest]:
        """A guest that serves, or runs a script of its own in place of that."""
        plan = Plan(
            exec=f"""
                cd {_DIRECTORY}; cp config/packets .; chmod +x packets
                {script or "./packets serve & exec /usr/bin/iperf3 --server"}
            """,
            more=[f"address=vec0 {place.address}/24", *([] if script else [f"ready=tcp {IPERF3_PORT}"])],
        )
        seccomp = "on" if isolation is Isolation.FAST else "off"
        with contextlib.ExitStack() as stack:
            descriptors, argument = _attach(stack, transport, f"ap{place.number}")
            with on_core(place.core):
                guest = self.start(
                    plan,
                    config={"packets": self.packets.read_bytes()},
                    devices=descriptors,
                    arguments=[
                        f"seccomp={seccomp}",
                        f"vec0:{argument},mac=02:00:00:00:00:{place.number:02x}",
                    ],
                )
            stack.callback(guest.destroy)
            guest.wait_ready()
            yield guest

    @contextmanager
    def namespace(self, place: Place = FAR) -> Iterator[OtherNetwork]:
        """A network namespace in place of a guest, which serves as one does."""
        with contextlib.ExitStack() as stack:
            other = OtherNetwork()
            stack.callback(other.close)
            name = f"ap{place.number}"
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", other.path)
            ip("link", "set", name, "master", BRIDGE, "up")
            with other.entered(), on_core(place.core):
                for link in ("lo", "eth0"):
                    ip("link", "set", link, "up")
                ip("address", "add", f"{place.address}/24", "dev", "eth0")
                for server in (["iperf3", "--server"], [str(self.packets), "serve"]):
                    stack.callback(_end, subprocess.Popen(server, stdout=subprocess.DEVNULL))
            yield other


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _attach(stack: contextlib.ExitStack, transport: Transport, name: str) -> tuple[list[Descriptor], str]:
    """What a guest inherits, and what it is told about that."""
    match transport:
        case Transport.FD:
            tap = Tap(name)
            stack.callback(tap.close)
            ip("link", "set", name, "master", BRIDGE, "up")
            return [tap], f"transport=fd,fd={tap.fileno()},vec=0"
        case Transport.TAP:
            ip("tuntap", "add", name, "mode", "tap", "vnet_hdr")
            stack.callback(ip, "link", "del", name)
            ip("link", "set", name, "master", BRIDGE, "up")
            return [], f"transport=tap,ifname={name},gro=1"
        case Transport.RAW:
            return [], f"transport=raw,ifname={_veth(stack, name)},gro=1"
        case Transport.PACKET:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            stack.callback(packets.close)
            packets.bind((_veth(stack, name), _ETH_P_ALL))
            _make_checksums(name)
            return [packets], f"transport=fd,fd={packets.fileno()}"


def _veth(stack: contextlib.ExitStack, name: str) -> str:
    """The guest's end of a pair."""
    peer = f"{name}-peer"
    ip("link", "add", name, "type", "veth", "peer", "name", peer)
    stack.callback(ip, "link", "del", name)
    ip("link", "set", name, "master", BRIDGE, "up")
    ip("link", "set", peer, "up")
    return peer


def _make_checksums(name: str) -> None:
    """What leaves by this link is complete, and none of it larger than a frame."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)
