"""Updates: what an administrator allows, and how an appliance stands to the newest image it may have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # appliancectl is to start without it
    from agent.model.swap import ImageTitle

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MIN = 24 * 60


class Policy(StrEnum):
    """What happens by itself when there is a newer image (`update: policy:` in appliance.yaml(5))."""

    MANUAL = "manual"
    """It is shown."""
    STAGE = "stage"
    """It is checked in advance."""
    AUTO = "auto"
    """It is checked, and swapped to."""


@dataclass(frozen=True, slots=True)
class Window:
    """When updates may begin, in local time: on each of `days` (0 is Monday) from `start_min` minutes after
    midnight on, for `length_min` minutes, which may go on into the next day."""

    days: tuple[int, ...]
    start_min: int
    length_min: int


@dataclass(frozen=True, slots=True)
class Group:
    """Appliances that stand in for each other. While one of them is updated, `healthy` others are to be."""

    name: str
    healthy: int = 1


class Standing(StrEnum):
    """How an appliance stands to the newest image that its configuration may mean."""

    NO_IMAGE = "no-image"
    UP_TO_DATE = "up-to-date"
    AVAILABLE = "available"
    """Its policy leaves it to its administrator."""
    UNCHECKED = "unchecked"
    STAGED = "staged"
    REFUSED = "refused"
    ASKS_FOR_MORE = "asks-for-more"
    QUARANTINED = "quarantined"
    TAKEN_BACK = "taken-back"
    """Its administrator has gone back from this image."""
    WAITS = "waits"
    OUTSIDE_WINDOW = "outside-window"
    GROUP_WAITS = "group-waits"
    DUE = "due"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would happen to an appliance now; `reason` is a clause for people."""

    standing: Standing
    reason: str


@dataclass(frozen=True, slots=True)
class Update:
    """An appliance with the image it has and the newest it may have; None where there is none."""

    name: str
    policy: Policy
    group: str
    image: ImageTitle | None
    newest: ImageTitle | None
    outlook: Outlook


class Progress(StrEnum):
    """What has become of an appliance in a run, where something was done."""

    UPDATING = "updating"
    UPDATED = "updated"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One appliance in a run of updates. `operation` is the number of its swap, 0 where there was none;
    then `result` is how it stands."""

    name: str
    operation: int
    result: Progress | Standing
    message: str
