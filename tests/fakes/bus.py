"""Connections to a test's message bus, and callers as independent of ours as possible."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent.host.bus import Bus
from agent.util.lean import skip_init

skip_init("dbus_next")
from dbus_next.constants import MessageFlag, MessageType  # noqa: E402
from dbus_next.message import Message  # noqa: E402

__all__ = ["Message", "MessageFlag", "MessageType", "busctl", "connected", "settled", "unique_name"]


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Bus]:
    """A connection for the time of the block."""
    bus = await Bus.connect(address)
    try:
        yield bus
    finally:
        await bus.close()


def unique_name(bus: Bus) -> str:
    """The name the bus has given to a connection."""
    return str(bus._bus.unique_name)


async def busctl(address: str, *arguments: str) -> Any:
    """What busctl(1) of systemd says, as JSON where it prints any."""
    process = await asyncio.create_subprocess_exec(
        "busctl",
        f"--address={address}",
        "--json=short",
        "--timeout=5",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    if process.returncode:
        raise RuntimeError(stderr.decode().strip())
    return json.loads(stdout) if stdout.startswith(b"{") else stdout.decode()


async def settled(bus: Bus) -> None:
    """Wait until everything that was sent to this connection so far has arrived: replies come in order."""
    await bus.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetId")
