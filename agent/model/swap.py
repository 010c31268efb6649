"""Swaps: how an appliance comes from one image or configuration to another, and what is remembered of that.

The phases are drawn in agent.plan.swap. Everything here is kept in /var/lib/appliance/appliances/NAME/state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.model.data import DataWork
from agent.model.generation import Held
from agent.model.image import Digest

SWAP_PREFIX = "swap-"
"""Snapshots that swaps make are called `swap-NUMBER`."""

HISTORY_LENGTH = 50
"""Entries of its history that an appliance keeps."""


class Phase(StrEnum):
    """Where a swap stands. Kept on disk before the first step of the phase is taken."""

    PREPARE = "prepare"
    SWITCH = "switch"
    TRIAL = "trial"
    SOAK = "soak"
    ROLLBACK = "rollback"


class Result(StrEnum):
    """How a swap ended."""

    COMMITTED = "committed"
    REFUSED = "refused"
    """Nothing was changed."""
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    """Neither the new nor the old image runs."""


class Snapshots(StrEnum):
    """Whether a swap keeps a copy of the data volume (`snapshot:` in appliance.yaml(5))."""

    AUTO = "auto"
    """Where it costs nothing, or where going back would be impossible without."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ImageTitle:
    """An image as history names it: it may have left the store long since."""

    digest: Digest
    reference: str

    def __str__(self) -> str:
        return f"{self.reference} ({self.digest.short})"


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap under way.

    It goes from the image `old`, configured by `old_generation`, to `new` and `new_generation`: one of the
    two may be the same. `old_wanted` and `new_wanted` are what `image:` says in these. `back` is whether
    somebody asked to go back to what was before.

    `number` counts the swaps of an appliance; `running` is whether the guest ran. `snapshot` names the copy
    of the data volume that it makes, '' for none; `restore` the one whose content the data volume gets with
    the switch. `old_format` is the data format before it, 0 where there is no volume. `baseline` says why
    the old guest did not answer from outside, '' where it did. `reason` is why it goes back, `to_old_data`
    whether with the old data, `blame` whether what is new is at fault.
    """

    number: int
    phase: Phase
    old: ImageTitle
    new: ImageTitle
    old_generation: str
    new_generation: str
    old_wanted: str
    new_wanted: str
    running: bool
    soak_s: float
    started_at_us: int
    automatic: bool = False
    back: bool = False
    snapshot: str = ""
    restore: str = ""
    old_format: int = 0
    baseline: str = ""
    downtime_ms: float = 0.0
    reason: str = ""
    to_old_data: bool = False
    blame: bool = False

    @property
    def changes_image(self) -> bool:
        """Whether it leads to another image."""
        return self.old.digest != self.new.digest

    @property
    def changes_configuration(self) -> bool:
        """Whether it leads to another configuration."""
        return self.old_generation != self.new_generation


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A swap that ended. Times are CLOCK_REALTIME in microseconds; `downtime_ms` is 0 where none was
    measured. Generations are '' where the configuration had no part in it.

    `snapshot` is the data volume as it was before, in `data_format`; '' where there is none. After a
    rollback that failed it is there unless the volume is that again.
    """

    number: int
    old: ImageTitle
    new: ImageTitle
    result: Result
    reason: str
    started_at_us: int
    ended_at_us: int
    downtime_ms: float
    snapshot: str = ""
    data_format: int = 0
    old_generation: str = ""
    new_generation: str = ""

    @property
    def changed_image(self) -> bool:
        """Whether it led to another image, or was to."""
        return self.old.digest != self.new.digest


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image that failed here: nothing but its administrator's word makes it run again."""

    image: ImageTitle
    reason: str
    since_us: int


@dataclass(frozen=True, slots=True)
class ApplianceState:
    """What is remembered of one appliance.

    `image` was chosen when `image:` said `wanted`, and stays until that changes. `generation` is the
    configuration in force, '' for none yet; `held` the one in the administrator's files, if that is not to
    be. `data_format` is what the data volume was last written in, 0 where nobody wrote to it. `failure` is
    why the appliance is not started: a rollback that failed. `work` is what is being done with its data, if
    anything.
    """

    image: Digest | None = None
    wanted: str = ""
    generation: str = ""
    held: Held | None = None
    data_format: int = 0
    swaps: int = 0
    swap: Swap | None = None
    failure: str = ""
    history: tuple[HistoryEntry, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    work: DataWork | None = None

    def quarantined(self, digest: Digest) -> Quarantined | None:
        """Why the image must not be tried by itself; None where it may."""
        return next((entry for entry in self.quarantine if entry.image.digest == digest), None)
