"""Snapshots of data volumes, and how one becomes the volume again. Pure; agent.core.data takes the steps.

                         ┌─────────┐  copied  ┌────────┐ switched ┌───────┐ healthy
    restore:             │ prepare ├─────────►│ switch ├─────────►│ trial ├────────► restored
                         └────┬────┘          └───┬────┘          └───┬───┘
                       failed │            failed │    ┌──────────┐   │ failed
                              │                   └───►│ rollback │◄──┘
                              ▼                        └────┬─────┘
                      nothing changed                       ▼ the data of before

    snapshot:   switch ──► taken. The guest is stopped meanwhile and started again, whatever comes of it.

While a restore is prepared the guest runs; a copy of the snapshot is made beside the volume. The switch
stops the guest, gives the volume a second name (that of a new snapshot) and renames the copy over its first
one: there is no instant without a volume. A guest starts on the restored data only when the phase `trial` is
on disk. So whatever dies, and whenever: before `trial` the data of before are in force, afterwards the
restored ones, until they are found wanting.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from agent.config.units import format_size
from agent.model.data import DataKind, DataPhase, Snapshot, SnapshotFile, SnapshotNote
from agent.model.image import Manifest
from agent.model.swap import ApplianceState, ImageTitle
from agent.plan.swap import why_unreadable

INTERRUPTED = "the agent was interrupted"
_SECOND_US = 1_000_000


def snapshot_name(now_us: int) -> str:
    """What a snapshot is called that nobody named: `20261124t203105z`."""
    return time.strftime("%Y%m%dt%H%M%Sz", time.gmtime(now_us / _SECOND_US))


def unused_name(name: str, used: Iterable[str]) -> str:
    """The name, or the first of `NAME-2`, `NAME-3` … that nobody has."""
    taken = set(used)
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return next(candidate for candidate in (name, *numbered) if candidate not in taken)


def attributed(files: Sequence[SnapshotFile], state: ApplianceState) -> list[Snapshot]:
    """Snapshots with what is known of them, oldest first: what lies beside them, or what the swap is
    remembered for that made them."""
    by_swap = dict(_notes_of_swaps(state))
    found = []
    for file in files:
        note = file.note or by_swap.get(file.name)
        taken_at_us = note.taken_at_us if note else file.modified_at_us
        found.append(Snapshot(file.name, file.size_bytes, file.used_bytes, taken_at_us, note))
    return sorted(found, key=lambda snapshot: (snapshot.taken_at_us, snapshot.name))


def _notes_of_swaps(state: ApplianceState) -> Iterator[tuple[str, SnapshotNote]]:
    for entry in state.history:
        if entry.snapshot:
            maker = _swap(entry.number, entry.old, entry.new)
            yield entry.snapshot, SnapshotNote(maker, entry.data_format, entry.started_at_us)
    if (swap := state.swap) and swap.snapshot:
        maker = _swap(swap.number, swap.old, swap.new)
        yield swap.snapshot, SnapshotNote(maker, swap.old_format, swap.started_at_us)


def _swap(number: int, old: ImageTitle, new: ImageTitle) -> str:
    return f"swap {number}, {old.reference} → {new.reference}"


def taken_up(state: ApplianceState, *, aside_there: bool) -> ApplianceState:
    """The state in which the next agent takes up what an agent left that died; the volume goes back with it
    wherever it differs.

    `aside_there` is whether the data of before are still a snapshot. Where a trial has none, it has gone
    back already, but there was no space to say so.
    """
    work = state.work
    if work is None or work.kind is not DataKind.RESTORE:
        return state
    if work.phase is DataPhase.PREPARE:
        return replace(state, work=None)
    if work.phase is DataPhase.TRIAL and aside_there:
        return state
    back = replace(work, phase=DataPhase.ROLLBACK, reason=work.reason or INTERRUPTED)
    return replace(state, work=back, data_format=work.old_format)


def goes_back(state: ApplianceState) -> bool:
    """Whether the data of before belong to what `taken_up` has found."""
    return state.work is None or state.work.phase is DataPhase.ROLLBACK


def why_not_restored(snapshot: Snapshot, manifest: Manifest, *, data_bytes: int) -> str:
    """What is against making a snapshot the volume of an appliance with this image; ''. `data_bytes` is
    the size that the volume is to have."""
    if snapshot.note is None:
        return "nothing is known of its data format"
    if snapshot.size_bytes > data_bytes:
        return f"it has {format_size(snapshot.size_bytes)}, and `data:` allows {format_size(data_bytes)}"
    return why_unreadable(manifest, snapshot.note.data_format)
