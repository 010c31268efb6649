"""Keeps other programs that manage interfaces away from ours: systemd-networkd and NetworkManager.

Either would take a catch-all of the administrator's (`[Match] Name=*`) for an order to configure our bridges
and taps, and remove the host's addresses from them. The files lie in /run: without the agent they are gone
with the next boot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from agent.model.change import Change
from agent.model.errors import HostError
from agent.model.network import Bridge
from agent.model.paths import Paths
from agent.util.files import ensure_absent, ensure_file, explain_errors
from agent.util.run import run

TAPS = "ap-*"
_HEAD = "# Written by appliance-agent: it looks after these interfaces itself.\n"
_IS_ACTIVE = ("systemctl", "--quiet", "is-active", "systemd-networkd")
_RELOAD = ("networkctl", "reload")


class InterfaceManagers:
    """Blocking; in the reconciler's thread."""

    def __init__(self, paths: Paths) -> None:
        self._networkd = paths.networkd / "10-appliance.network"
        self._network_manager = paths.network_manager / "appliance.conf"

    def plan(self, bridges: Collection[Bridge]) -> list[Change]:
        """What it takes to have them leave these bridges alone, and all taps."""
        names = sorted(bridge.name for bridge in bridges)
        wanted = {
            self._networkd: render_networkd(names),
            self._network_manager: render_network_manager(names),
        }
        if all(path.exists() and path.read_text(encoding="utf-8") == text for path, text in wanted.items()):
            return []
        return [Change("claim bridges and taps", partial(self._write, wanted))]

    def remove(self) -> None:
        """Claim nothing any more."""
        for path in (self._networkd, self._network_manager):
            if path.exists():
                ensure_absent(path)

    def _write(self, wanted: Mapping[Path, str]) -> None:
        for path, text in wanted.items():
            with explain_errors(f"Writing {path}"):
                ensure_file(path, text)
        # One that starts later reads them by itself.
        try:
            run(_IS_ACTIVE)
        except HostError:
            return
        run(_RELOAD)


def render_networkd(bridges: Collection[str]) -> str:
    """A systemd.network(5) file."""
    return f"{_HEAD}[Match]\nName={' '.join((TAPS, *bridges))}\n\n[Link]\nUnmanaged=yes\n"


def render_network_manager(bridges: Collection[str]) -> str:
    """A file for NetworkManager.conf(5)."""
    devices = ";".join(f"interface-name:{name}" for name in (TAPS, *bridges))
    return f"{_HEAD}[keyfile]\nunmanaged-devices+={devices}\n"
