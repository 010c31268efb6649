"""Persistent taps through /dev/net/tun (Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.model.errors import HostError

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP_NO_PI = 0x1002


@contextmanager
def new_tap(name: str, owner_uid: int) -> Iterator[None]:
    """A tap that only this user may attach to, for the block; it stays if that succeeds. OSError, HostError.

    Whatever fails in the block, or a crash, leaves nothing.
    """
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
        fcntl.ioctl(tun, _TUNSETOWNER, owner_uid)
        # Without an owner any local user may attach.
        if tap_owner(name) != owner_uid:
            raise HostError(f"tap {name} did not take its owner")
        yield
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)


def tap_owner(name: str) -> int:
    """The uid that may attach to a tap, -1 for anybody. OSError where there is no such tap."""
    return int(Path(f"/sys/class/net/{name}/owner").read_text(encoding="ascii"))
