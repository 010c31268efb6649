"""The state machine of a swap: where each step leads, which image is in force, and what is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.image import DataFormat, Digest, Manifest, Requests
from agent.model.swap import (
    HISTORY_LENGTH,
    ApplianceState,
    HistoryEntry,
    ImageTitle,
    Phase,
    Quarantined,
    Result,
    Snapshots,
    Swap,
)
from agent.plan.swap import TRANSITIONS, Step, Verdict, advance, begin, judge, reads_back, why_unreadable
from tests.fakes.samples import sample_manifest

OLD, NEW, OTHER = (ImageTitle(Digest.of(name), name.decode()) for name in (b"old:1", b"new:2", b"other:3"))
BEFORE = ApplianceState(image=None, wanted="", generation="aa", data_format=1, swaps=6)


def sample_swap(**changes: Any) -> Swap:
    values: dict[str, Any] = {
        "number": 7,
        "phase": Phase.PREPARE,
        "old": OLD,
        "new": NEW,
        "old_generation": "aa",
        "new_generation": "aa",
        "old_wanted": "dns",
        "new_wanted": "dns",
        "running": True,
        "soak_s": 30.0,
        "started_at_us": 100,
        "snapshot": "swap-7",
        "old_format": 1,
    }
    return Swap(**{**values, **changes})


def walk(steps: Sequence[Step], state: ApplianceState = BEFORE, **changes: Any) -> ApplianceState:
    """Begin, and take these steps: a failure is the new image's fault, which writes format 2."""
    state = begin(state, sample_swap(**changes))
    for step in steps:
        state = advance(
            state,
            step,
            now_us=200,
            reason="it is sick" if step is Step.FAILED else "",
            blame=step is Step.FAILED,
            data_format=2 if step is Step.SWITCHED else state.data_format,
        )
    return state


TO = {
    Phase.PREPARE: [],
    Phase.SWITCH: [Step.PREPARED],
    Phase.TRIAL: [Step.PREPARED, Step.SWITCHED],
    Phase.SOAK: [Step.PREPARED, Step.SWITCHED, Step.READY],
    Phase.ROLLBACK: [Step.PREPARED, Step.SWITCHED, Step.FAILED],
}
"""The way to each phase."""


def phase_of(state: ApplianceState) -> Phase | Result:
    return state.swap.phase if state.swap else state.history[-1].result


# --- where it goes


@pytest.mark.parametrize(("phase", "steps"), TO.items())
def test_the_way_to_each_phase(phase: Phase, steps: list[Step]) -> None:
    assert phase_of(walk(steps)) is phase


@pytest.mark.parametrize(("transition", "target"), TRANSITIONS.items())
def test_where_each_step_leads(transition: tuple[Phase, Step], target: Phase | Result) -> None:
    phase, step = transition
    assert phase_of(walk([*TO[phase], step])) is target


@pytest.mark.parametrize(
    ("phase", "step"),
    [(phase, step) for phase in Phase for step in Step if (phase, step) not in TRANSITIONS],
)
def test_a_step_that_a_phase_does_not_know(phase: Phase, step: Step) -> None:
    with pytest.raises(LookupError):
        walk([*TO[phase], step])


@pytest.mark.parametrize("step", Step)
def test_no_step_without_a_swap(step: Step) -> None:
    with pytest.raises(LookupError, match="no swap"):
        advance(BEFORE, step, now_us=1)


def test_a_guest_that_does_not_run_has_no_trial() -> None:
    state = walk([Step.PREPARED, Step.SWITCHED], running=False)
    assert phase_of(state) is Result.COMMITTED
    assert (state.image, state.data_format) == (NEW.digest, 2)


@pytest.mark.parametrize(
    ("steps", "image", "wanted", "data_format"),
    [
        ([], None, "", 1),
        ([Step.PREPARED], None, "", 1),
        ([Step.FAILED], None, "", 1),
        ([Step.PREPARED, Step.FAILED], OLD, "dns", 1),
        ([Step.PREPARED, Step.SWITCHED], NEW, "dns", 2),
        ([Step.PREPARED, Step.SWITCHED, Step.READY], NEW, "dns", 2),
        ([Step.PREPARED, Step.SWITCHED, Step.READY, Step.SOAKED], NEW, "dns", 2),
        ([Step.PREPARED, Step.SWITCHED, Step.FAILED], OLD, "dns", 2),
        ([Step.PREPARED, Step.SWITCHED, Step.READY, Step.FAILED], OLD, "dns", 2),
        ([Step.PREPARED, Step.SWITCHED, Step.FAILED, Step.RESTORED], OLD, "dns", 2),
        ([Step.PREPARED, Step.SWITCHED, Step.FAILED, Step.FAILED], OLD, "dns", 2),
    ],
)
def test_the_image_in_force(
    steps: list[Step], image: ImageTitle | None, wanted: str, data_format: int
) -> None:
    """An image is in force where `wanted` says that it was chosen for what `image:` says."""
    state = walk(steps)
    assert (state.image, state.wanted) == (image.digest if image else None, wanted)
    assert state.data_format == data_format


def legal(state: ApplianceState) -> list[Step]:
    return [step for phase, step in TRANSITIONS if state.swap and phase is state.swap.phase]


@given(st.data(), st.booleans(), st.booleans())
def test_whatever_happens_it_ends_in_one_result(data: st.DataObject, running: bool, blame: bool) -> None:
    state = begin(BEFORE, sample_swap(running=running))
    taken = 0
    while state.swap:
        step = data.draw(st.sampled_from(legal(state)))
        assert state.history == ()
        state = advance(state, step, now_us=200, reason="why", blame=blame)
        taken += 1
    assert taken <= 6
    [entry] = state.history
    assert (state.image == NEW.digest) == (entry.result is Result.COMMITTED)
    assert bool(state.failure) == (entry.result is Result.FAILED)
    assert bool(state.quarantine) == (blame and entry.result in {Result.ROLLED_BACK, Result.FAILED})


# --- what is remembered


def test_an_entry_of_the_history() -> None:
    steps = [Step.PREPARED, Step.SWITCHED, Step.READY, Step.SOAKED]
    state = walk(steps, downtime_ms=400.5)
    assert (state.swap, state.swaps, state.failure) == (None, 7, "")
    assert state.history == (
        HistoryEntry(7, OLD, NEW, Result.COMMITTED, "", 100, 200, 400.5, snapshot="swap-7", data_format=1),
    )


@pytest.mark.parametrize(
    ("steps", "reason", "snapshot"),
    [
        ([Step.FAILED], "it is sick", ""),
        ([Step.PREPARED, Step.FAILED, Step.RESTORED], "it is sick", ""),
        (
            [Step.PREPARED, Step.FAILED, Step.FAILED],
            "it is sick; going back failed too: it is sick",
            "swap-7",
        ),
    ],
)
def test_why_it_did_not_come_to_be(steps: list[Step], reason: str, snapshot: str) -> None:
    [entry] = walk(steps).history
    assert (entry.reason, entry.snapshot) == (reason, snapshot)


def test_the_history_is_bounded_and_forgets_the_oldest() -> None:
    state = BEFORE
    for number in range(1, HISTORY_LENGTH + 3):
        state = walk([Step.FAILED], state, number=number)
    assert [entry.number for entry in state.history] == list(range(3, HISTORY_LENGTH + 3))
    assert state.swaps == HISTORY_LENGTH + 2


BACK = [Step.PREPARED, Step.SWITCHED, Step.FAILED, Step.RESTORED]
WELL = [Step.PREPARED, Step.SWITCHED, Step.READY, Step.SOAKED]


def test_an_image_that_is_to_blame_is_quarantined_once() -> None:
    state = walk(BACK, walk(BACK, replace(BEFORE, quarantine=(Quarantined(OTHER, "old story", 1),))))
    assert state.quarantine == (Quarantined(OTHER, "old story", 1), Quarantined(NEW, "it is sick", 200))
    assert state.quarantined(NEW.digest) == Quarantined(NEW, "it is sick", 200)
    assert state.quarantined(OLD.digest) is None


def test_an_image_that_proved_itself_is_cleared() -> None:
    assert walk(WELL, walk(BACK)).quarantine == ()


def test_an_image_that_was_refused_keeps_its_bad_name() -> None:
    before = walk(BACK)
    assert walk([Step.FAILED], before).quarantine == before.quarantine


def test_nobody_is_to_blame_for_a_cancelled_swap() -> None:
    state = walk([Step.PREPARED, Step.SWITCHED])
    state = advance(state, Step.FAILED, now_us=1, reason="cancelled")
    assert advance(state, Step.RESTORED, now_us=2).quarantine == ()


@pytest.mark.parametrize(("steps", "stays"), [([Step.FAILED], True), (BACK, False), (WELL, False)])
def test_an_earlier_failure_is_mended_by_whatever_starts_a_guest(steps: list[Step], *, stays: bool) -> None:
    state = walk(steps, replace(BEFORE, failure="neither runs"))
    assert state.failure == ("neither runs" if stays else "")


# --- whether one image may follow another


def verdict(old: Manifest, new: Manifest, **changes: Any) -> Verdict:
    values: dict[str, Any] = {"data_format": 1, "memory_bytes": 0, "snapshots": Snapshots.AUTO}
    return judge(old, new, **{**values, **changes})


MANIFEST = sample_manifest()
MIB = 1 << 20


def asking(memory_mib: int = 32, *ports: str) -> Manifest:
    return sample_manifest(requests=Requests(memory_bytes=memory_mib * MIB, ports=ports))


def writing(data_format: int, *reads: int) -> Manifest:
    return sample_manifest(data=DataFormat("/data", format=data_format, reads=reads))


def test_an_image_that_asks_for_nothing_new() -> None:
    assert verdict(MANIFEST, sample_manifest(version="5")) == Verdict([], [])


def test_another_role_is_refused() -> None:
    found = verdict(MANIFEST, sample_manifest(role="web-static/1"))
    assert found.refusals == ["its role is web-static/1, and dns-authoritative/1 is needed"]


@pytest.mark.parametrize(
    ("granted_mib", "wanted_mib", "asks"),
    [(0, 32, False), (0, 33, True), (64, 64, False), (64, 65, True), (16, 32, True)],
)
def test_more_memory_than_the_old_one_had(granted_mib: int, wanted_mib: int, *, asks: bool) -> None:
    found = verdict(asking(32), asking(wanted_mib), memory_bytes=granted_mib * MIB)
    expected = f"it wants {wanted_mib}M of memory, not {granted_mib or 32}M"
    assert (list(found.requests), found.refusals) == ([expected] if asks else [], [])


def test_more_ports() -> None:
    found = verdict(asking(32, "53/udp", "53/tcp"), asking(32, "853/tcp", "53/udp", "443/tcp"))
    assert list(found.requests) == ["it wants to answer on 443/tcp, 853/tcp too"]
    assert verdict(asking(32, "53/udp", "53/tcp"), asking(32, "53/udp")) == Verdict([], [])


def test_giving_up_the_data_volume() -> None:
    without = sample_manifest(data=None)
    assert list(verdict(MANIFEST, without).requests) == ["it does not use the data volume"]
    assert verdict(without, MANIFEST, data_format=0) == Verdict([], [])


@pytest.mark.parametrize("snapshots", Snapshots)
def test_no_way_back_is_a_question_only_where_no_snapshot_may_be_made(snapshots: Snapshots) -> None:
    found = verdict(writing(1, 1), writing(2, 1, 2), snapshots=snapshots)
    asked = ["there would be no way back: the old image cannot read what it writes"]
    assert list(found.requests) == (asked if snapshots is Snapshots.NEVER else [])
    assert verdict(writing(1, 1, 2), writing(2, 1, 2), snapshots=snapshots) == Verdict([], [])


@pytest.mark.parametrize(
    ("manifest", "data_format", "reason"),
    [
        (writing(2, 1, 2), 1, ""),
        (writing(2, 2), 0, ""),
        (sample_manifest(data=None), 7, ""),
        (writing(3, 2, 3), 1, "the data volume has format 1, and dns-nsd 4.6.1-1 reads only 2, 3"),
    ],
)
def test_a_data_volume_that_an_image_cannot_read(manifest: Manifest, data_format: int, reason: str) -> None:
    assert why_unreadable(manifest, data_format) == reason
    assert verdict(MANIFEST, manifest, data_format=data_format).refusals == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (writing(1, 1), writing(1, 1), True),
        (writing(1, 1), writing(2, 1, 2), False),
        (writing(1, 1, 2), writing(2, 2), True),
        (sample_manifest(data=None), writing(2, 2), True),
        (writing(1, 1), sample_manifest(data=None), True),
    ],
)
def test_going_on_with_what_the_new_image_wrote(old: Manifest, new: Manifest, *, expected: bool) -> None:
    assert reads_back(old, new) is expected
