"""In place of a guest: a network namespace with an ordinary kernel, attached to the host's tap as User-Mode
Linux is, by a descriptor of /dev/net/tun."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agent.model.network import Port
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip

# linux/if_tun.h
_TUNSETIFF, _IFF_TAP_NO_PI = 0x400454CA, 0x1002
_FRAME_BYTES = 1 << 16


class Guest:
    """Runs until it is stopped."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.namespace = OtherNetwork()
        with self.namespace.entered():
            self._inner = _attached("vec0")
            _set_up(port)
        self._outer = _attached(port.tap)
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="guest")
        self._thread.start()

    def run(self, *arguments: str) -> str:
        """ip(8) in it."""
        with self.namespace.entered():
            return ip(*arguments)

    def stop(self) -> None:
        """Detach from the tap; once more is no error."""
        if self._thread.is_alive():
            os.write(self._ended, b".")
            self._thread.join()
            for descriptor in (self._inner, self._outer, self._end, self._ended):
                os.close(descriptor)
            self.namespace.close()

    def _carry(self) -> None:
        """Frames, in both directions."""
        other = {self._inner: self._outer, self._outer: self._inner}
        while True:
            readable, _, _ = select.select([*other, self._end], [], [])
            for descriptor in readable:
                if descriptor == self._end:
                    return
                # A tap that is down takes nothing.
                with contextlib.suppress(OSError):
                    os.write(other[descriptor], os.read(descriptor, _FRAME_BYTES))


def _attached(tap: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", tap.encode(), _IFF_TAP_NO_PI))
    return descriptor


def _set_up(port: Port) -> None:
    ip("link", "set", "lo", "up")
    ip("link", "set", "vec0", "address", port.mac)
    ip("link", "set", "vec0", "up")
    for address in port.addresses:
        subnet = port.network.subnet_of(address)
        assert subnet
        nodad = ["nodad"] if address.version == 6 else []
        ip("address", "add", f"{address}/{subnet.prefixlen}", "dev", "vec0", *nodad)
        if port.default_route and (gateway := port.network.gateway(subnet)):
            ip(f"-{address.version}", "route", "add", "default", "via", str(gateway))


@contextmanager
def running(port: Port) -> Iterator[Guest]:
    """A guest for the time of the block."""
    guest = Guest(port)
    try:
        yield guest
    finally:
        guest.stop()
