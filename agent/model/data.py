"""Data volumes and their snapshots: what is known of them, and what may be under way with them.

The phases are drawn in agent.plan.data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DataKind(StrEnum):
    """What is done with a data volume, by that name as an operation."""

    SNAPSHOT = "snapshot"
    RESTORE = "restore"


class DataPhase(StrEnum):
    """Where it stands. Kept on disk before the first step of the phase is taken."""

    PREPARE = "prepare"
    SWITCH = "switch"
    TRIAL = "trial"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class DataWork:
    """A snapshot that is made, or restored, while the guest does not run.

    `snapshot` is which one; `running` whether the guest ran and is to run again. For what is restored:
    `aside` names the snapshot that the volume of before becomes, `old_format` and `new_format` are the data
    formats before and after, `baseline` says why the guest did not answer from outside even before, ''
    where it did, and `reason` why it goes back.
    """

    kind: DataKind
    phase: DataPhase
    snapshot: str
    running: bool
    started_at_us: int
    aside: str = ""
    old_format: int = 0
    new_format: int = 0
    baseline: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotNote:
    """What is kept beside a snapshot: who made it and why, as a clause, and what it is a copy of.

    `data_format` is 0 where nobody had written to the volume; the time is CLOCK_REALTIME in microseconds.
    """

    maker: str
    data_format: int
    taken_at_us: int


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot as it lies on the disk; of those that swaps make, `note` is None: history has it."""

    name: str
    modified_at_us: int
    size_bytes: int
    used_bytes: int
    note: SnapshotNote | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot and everything that is known of it; `note` is None where that is lost."""

    name: str
    size_bytes: int
    used_bytes: int
    taken_at_us: int
    note: SnapshotNote | None


@dataclass(frozen=True, slots=True)
class Volume:
    """A data volume as it lies on the disk; sizes are 0 where there is none."""

    path: str
    size_bytes: int
    used_bytes: int
