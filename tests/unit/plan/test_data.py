"""Names of snapshots, who made them, and what becomes of work that was interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.model.data import DataKind, DataPhase, DataWork, Snapshot, SnapshotFile, SnapshotNote
from agent.model.image import DataFormat
from agent.model.names import is_snapshot_name
from agent.model.swap import ApplianceState, HistoryEntry, ImageTitle, Phase, Result, Swap
from agent.plan.data import attributed, goes_back, snapshot_name, taken_up, unused_name, why_not_restored
from tests.fakes.samples import sample_image

OLD = ImageTitle(sample_image().digest, "dns-nsd:4.6")
NEW = ImageTitle(sample_image("dns-nsd", "5").digest, "dns-nsd:5")
NOTE = SnapshotNote("the administrator", 1, 50)
WORK = DataWork(
    DataKind.RESTORE, DataPhase.PREPARE, "kept", running=True, started_at_us=5, aside="before", old_format=1
)


def test_names_by_time() -> None:
    assert snapshot_name(1_795_552_265_000_000) == "20261124t203105z"
    assert is_snapshot_name(snapshot_name(0))
    assert is_snapshot_name(f"before-{snapshot_name(0)}-12")


def test_names_that_nobody_has() -> None:
    assert unused_name("a", []) == "a"
    assert unused_name("a", ["a", "a-2", "b"]) == "a-3"


@pytest.mark.parametrize("name", ["", "-a", ".a", "A", "a/b", "a b", "ü", "a\n", "x" * 42])
def test_names_that_are_none(name: str) -> None:
    assert not is_snapshot_name(name)


def test_who_made_them() -> None:
    entry = HistoryEntry(1, OLD, NEW, Result.COMMITTED, "", 10, 20, 0.0, snapshot="swap-1", data_format=1)
    swap = Swap(
        number=2,
        phase=Phase.SOAK,
        old=NEW,
        new=OLD,
        old_generation="aa",
        new_generation="aa",
        old_wanted="dns-nsd",
        new_wanted="dns-nsd",
        running=True,
        soak_s=1.0,
        started_at_us=30,
        snapshot="swap-2",
        old_format=2,
    )
    files = [
        SnapshotFile("kept", 0, 8, 4, NOTE),
        SnapshotFile("lost", 40, 8, 4),
        SnapshotFile("swap-1", 0, 8, 4),
        SnapshotFile("swap-2", 0, 8, 4),
    ]
    found = attributed(files, ApplianceState(history=(entry,), swap=swap))
    assert [(entry.name, entry.taken_at_us) for entry in found] == [
        ("swap-1", 10),
        ("swap-2", 30),
        ("lost", 40),
        ("kept", 50),
    ]
    assert [entry.note and (entry.note.maker, entry.note.data_format) for entry in found] == [
        ("swap 1, dns-nsd:4.6 → dns-nsd:5", 1),
        ("swap 2, dns-nsd:5 → dns-nsd:4.6", 2),
        None,
        ("the administrator", 1),
    ]


def test_what_can_be_restored() -> None:
    manifest = sample_image(data=DataFormat("/data", format=2, reads=(1, 2))).manifest
    good = Snapshot("kept", 8 << 20, 4, 5, NOTE)
    assert why_not_restored(good, manifest, data_bytes=8 << 20) == ""
    assert "`data:` allows 4M" in why_not_restored(good, manifest, data_bytes=4 << 20)
    newer = replace(good, note=replace(NOTE, data_format=3))
    assert "has format 3" in why_not_restored(newer, manifest, data_bytes=8 << 20)
    unused = replace(good, note=replace(NOTE, data_format=0))
    assert why_not_restored(unused, manifest, data_bytes=8 << 20) == ""
    assert "nothing is known" in why_not_restored(replace(good, note=None), manifest, data_bytes=8 << 20)


@pytest.mark.parametrize(
    ("phase", "there", "becomes"),
    [
        (DataPhase.PREPARE, False, None),
        (DataPhase.SWITCH, False, DataPhase.ROLLBACK),
        (DataPhase.SWITCH, True, DataPhase.ROLLBACK),
        (DataPhase.TRIAL, True, DataPhase.TRIAL),
        (DataPhase.TRIAL, False, DataPhase.ROLLBACK),
        (DataPhase.ROLLBACK, True, DataPhase.ROLLBACK),
        (DataPhase.ROLLBACK, False, DataPhase.ROLLBACK),
    ],
)
def test_a_restore_that_was_interrupted(phase: DataPhase, becomes: DataPhase | None, *, there: bool) -> None:
    state = ApplianceState(data_format=2, work=replace(WORK, phase=phase))
    after = taken_up(state, aside_there=there)
    assert (after.work.phase if after.work else None) is becomes
    assert goes_back(after) == (becomes is not DataPhase.TRIAL)
    if becomes is DataPhase.ROLLBACK:
        assert after.data_format == 1
        assert after.work is not None
        assert after.work.reason == "the agent was interrupted"


def test_what_is_no_restore_stays_as_it_is() -> None:
    snapshot = replace(WORK, kind=DataKind.SNAPSHOT, phase=DataPhase.SWITCH)
    for state in (ApplianceState(), ApplianceState(work=snapshot)):
        assert taken_up(state, aside_there=False) == state
