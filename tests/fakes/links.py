"""The host's network in memory, for tests/fakes/world.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from agent.model.address import Subnet
from agent.model.change import Change, Effect
from agent.model.errors import ApplianceError
from agent.model.listener import Listener
from agent.model.network import Bridge, Tap
from agent.plan.ruleset import Ruleset
from tests.fakes.journal import Journal


class FakeLinks:
    """Bridges and taps by name."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.links: dict[str, Bridge | Tap] = {}
        self.foreign: list[Subnet] = []
        self.listening: list[Listener] = []

    def plan(self, bridges: Sequence[Bridge], taps: Sequence[Tap]) -> list[Change]:
        links: list[Bridge | Tap] = [*bridges, *taps]
        wanted = {link.name: link for link in links}
        strays = sorted(self.links.keys() - wanted.keys())
        changes = [Change(f"remove {name}", partial(self._remove, name)) for name in strays]
        for name, link in wanted.items():
            if self.links.get(name) != link:
                effect = Effect.RESTART | Effect.CUT_OFF if isinstance(link, Tap) else Effect.NONE
                appliance = link.appliance if isinstance(link, Tap) else ""
                changes.append(Change(f"create {name}", partial(self._put, link), appliance, effect))
        return changes

    def _put(self, link: Bridge | Tap) -> None:
        self._journal.note(f"link {link.name}")
        self.links[link.name] = link

    def _remove(self, name: str) -> None:
        self._journal.note(f"unlink {name}")
        del self.links[name]

    def routes(self) -> list[Subnet]:
        return self.foreign

    def listeners(self) -> list[Listener]:
        return self.listening


class FakeFirewall:
    """Takes rules at once and says so only where it is to: `tells`."""

    def __init__(self) -> None:
        self.loaded: Ruleset = ()
        self.tells = False
        self.failure: ApplianceError | None = None

    def plan(self, wanted: Ruleset) -> list[Change]:
        if not self.tells:
            self.loaded = wanted
        if self.loaded == wanted:
            return []
        return [Change("load the firewall", partial(self._load, wanted), effect=Effect.NEEDED)]

    def _load(self, wanted: Ruleset) -> None:
        if self.failure:
            raise self.failure
        self.loaded = wanted


class FakeNames:
    """Names as they are written; quiet, as `FakeFirewall` is."""

    def __init__(self) -> None:
        self.guests: dict[str, str] = {}
        self.host = ""
        self.tells = False

    def disk(self, appliance: str) -> Path:
        return Path(f"/run/appliance/{appliance}/names")

    def plan_guest(self, appliance: str, hosts: str) -> list[Change]:
        if not self.tells:
            self.guests[appliance] = hosts
        if self.guests.get(appliance) == hosts:
            return []
        return [Change("write names", partial(self.guests.__setitem__, appliance, hosts), appliance)]

    def plan_host(self, hosts: str) -> list[Change]:
        self.host = hosts
        return []


class FakeManagers:
    """There are no others."""

    def plan(self, bridges: Collection[Bridge]) -> list[Change]:
        del bridges
        return []
