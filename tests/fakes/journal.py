"""What is done to the host in memory, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

SECOND_US = 1_000_000


@dataclass
class Journal:
    """What was done, in order; doing something takes a second. `failing` holds what is to go wrong
    instead."""

    done: list[str] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    now_us: int = SECOND_US

    def note(self, text: str) -> None:
        self.now_us += SECOND_US
        if text in self.failing:
            raise self.failing[text]
        self.done.append(text)

    def take(self) -> list[str]:
        """What was done since the last call."""
        taken, self.done = self.done, []
        return taken
