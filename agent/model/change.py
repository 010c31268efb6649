"""One thing to be done to the host, planned before it is done: in words for a dry run, and as a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto


class Effect(Flag):
    """What a change asks for afterwards."""

    NONE = 0
    DAEMON_RELOAD = auto()
    RESTART = auto()
    """A running guest goes on as before until it is started anew."""
    CUT_OFF = auto()
    """A running guest is without its network until it is started anew."""
    NEEDED = auto()
    """Nothing that comes after it is done where it fails."""


@dataclass(frozen=True, slots=True)
class Change:
    """`text` reads after the appliance's name or on its own: “create tap ap-dns”. `apply` blocks."""

    text: str
    apply: Callable[[], object]
    appliance: str = ""
    effect: Effect = Effect.NONE

    def __str__(self) -> str:
        return f"{self.appliance}: {self.text}" if self.appliance else self.text
