"""The state machine of a swap. Pure: a state and a step in, the next state out; agent.core.swap takes the
steps.

                         ┌─────────┐  prepared  ┌────────┐
    old image runs       │ prepare ├───────────►│ switch │
                         └────┬────┘            └─┬────┬─┘
                       failed │          switched │    │ failed
                              │           ┌───────┘    │
                              │           ▼            │
                              │       ┌───────┐ ready ┌──────┐
    new image runs            │       │ trial ├──────►│ soak │
                              │       └───┬───┘       └┬───┬─┘
                              │           │ failed     │   │ soaked
                              │           ▼            │   │
                              │      ┌──────────┐◄─────┘   │
    old image runs again      │      │ rollback │failed    │
                              │      └─┬──────┬─┘          │
                              │        │      │ restored   │
                              ▼        ▼      ▼            ▼
                           refused  failed  rolled-back  committed

A guest that does not run has no trial: its switch ends in committed.

The state is written to disk before the first step of a phase, and `image` in it is what the appliance runs
when anything is started anew, by systemd, the agent or a reboot. It changes with `switched` and with
`failed`, in the same write as the phase. So whatever dies, and whenever: before `switched` the old image
is in force, and afterwards the new one, until it is found wanting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.model.generation import Held
from agent.model.image import Manifest
from agent.model.swap import (
    HISTORY_LENGTH,
    ApplianceState,
    HistoryEntry,
    Phase,
    Quarantined,
    Result,
    Snapshots,
    Swap,
)


class Step(StrEnum):
    """What leads from one phase to the next."""

    PREPARED = "prepared"
    SWITCHED = "switched"
    READY = "ready"
    SOAKED = "soaked"
    FAILED = "failed"
    RESTORED = "restored"


TRANSITIONS: dict[tuple[Phase, Step], Phase | Result] = {
    (Phase.PREPARE, Step.PREPARED): Phase.SWITCH,
    (Phase.PREPARE, Step.FAILED): Result.REFUSED,
    (Phase.SWITCH, Step.SWITCHED): Phase.TRIAL,
    (Phase.SWITCH, Step.FAILED): Phase.ROLLBACK,
    (Phase.TRIAL, Step.READY): Phase.SOAK,
    (Phase.TRIAL, Step.FAILED): Phase.ROLLBACK,
    (Phase.SOAK, Step.SOAKED): Result.COMMITTED,
    (Phase.SOAK, Step.FAILED): Phase.ROLLBACK,
    (Phase.ROLLBACK, Step.RESTORED): Result.ROLLED_BACK,
    (Phase.ROLLBACK, Step.FAILED): Result.FAILED,
}


def begin(state: ApplianceState, swap: Swap) -> ApplianceState:
    """The state with a new swap, which is in its first phase. One at a time."""
    return replace(state, swap=swap, swaps=swap.number, work=None)


def advance(
    state: ApplianceState,
    step: Step,
    *,
    now_us: int,
    reason: str = "",
    blame: bool = False,
    data_format: int = 0,
) -> ApplianceState:
    """The state after `step`; LookupError where the phase does not know it.

    `reason` goes with `failed`, and so does `blame`: whether the new image is at fault. `data_format` goes
    with `switched` and `failed`: what the image that is now in force writes.
    """
    swap = state.swap
    if swap is None:
        raise LookupError(f"no swap that could be {step}")
    target = TRANSITIONS[swap.phase, step]
    if step is Step.FAILED and swap.phase is not Phase.ROLLBACK:
        swap = replace(swap, reason=reason, blame=blame)
    if step is Step.SWITCHED:
        state = _with_new(state, swap, data_format)
        if not swap.running:
            target = Result.COMMITTED
    elif step is Step.FAILED and target is Phase.ROLLBACK:
        state = _with_old(state, swap, data_format)
    if isinstance(target, Phase):
        return replace(state, swap=replace(swap, phase=target))
    return _end(state, swap, target, reason or swap.reason, now_us=now_us)


def _with_new(state: ApplianceState, swap: Swap, data_format: int) -> ApplianceState:
    return replace(
        state,
        image=swap.new.digest,
        wanted=swap.new_wanted,
        generation=swap.new_generation,
        data_format=data_format,
    )


def _with_old(state: ApplianceState, swap: Swap, data_format: int) -> ApplianceState:
    return replace(
        state,
        image=swap.old.digest,
        wanted=swap.old_wanted,
        generation=swap.old_generation,
        data_format=data_format,
    )


def _end(state: ApplianceState, swap: Swap, result: Result, reason: str, *, now_us: int) -> ApplianceState:
    if result is Result.FAILED:
        reason = f"{swap.reason}; going back failed too: {reason}"
    entry = HistoryEntry(
        number=swap.number,
        old=swap.old,
        new=swap.new,
        result=result,
        reason=reason,
        started_at_us=swap.started_at_us,
        ended_at_us=now_us,
        downtime_ms=swap.downtime_ms,
        snapshot=swap.snapshot if result in {Result.COMMITTED, Result.FAILED} else "",
        data_format=swap.old_format,
        old_generation=swap.old_generation if swap.changes_configuration else "",
        new_generation=swap.new_generation if swap.changes_configuration else "",
    )
    return replace(
        state,
        swap=None,
        failure=_failure(state, result, reason),
        held=_held(state, swap, result),
        history=(*state.history, entry)[-HISTORY_LENGTH:],
        quarantine=_quarantine(state, swap, result, now_us=now_us),
    )


def _failure(state: ApplianceState, result: Result, reason: str) -> str:
    match result:
        case Result.FAILED:
            return reason
        case Result.REFUSED:
            return state.failure
        case _:
            return ""


def _held(state: ApplianceState, swap: Swap, result: Result) -> Held | None:
    """A configuration that proved itself is held no more; one that failed is, and one that was left."""
    if not swap.changes_configuration:
        return state.held
    if result is not Result.COMMITTED:
        return Held(swap.new_generation, swap.reason, for_good=swap.blame)
    return Held(swap.old_generation, "it was rolled back", for_good=True) if swap.back else None


def _quarantine(
    state: ApplianceState, swap: Swap, result: Result, *, now_us: int
) -> tuple[Quarantined, ...]:
    """An image that proved itself is cleared, one that was to blame is added.

    Where the image stays the same, another configuration proves nothing about it. Nothing is known of an
    image that never ran.
    """
    if not swap.changes_image or result is Result.REFUSED:
        return state.quarantine
    kept = tuple(entry for entry in state.quarantine if entry.image.digest != swap.new.digest)
    if result is Result.COMMITTED:
        return kept
    if swap.blame:
        return (*kept, Quarantined(swap.new, swap.reason, now_us))
    return state.quarantine


# --- whether one image may follow another


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is against a swap: `refusals` for good, `requests` until its administrator accepts them."""

    refusals: Sequence[str] = ()
    requests: Sequence[str] = ()


def judge(
    old: Manifest,
    new: Manifest,
    *,
    data_format: int,
    memory_bytes: int,
    snapshots: Snapshots,
    any_role: bool = False,
) -> Verdict:
    """Whether `new` can stand in for `old`; with `any_role`, whether it can come in its place.

    `data_format` is that of the data volume, 0 for none; `memory_bytes` what the administrator granted, 0
    where that is left to the image.
    """
    refusals = []
    if new.role != old.role and not any_role:
        refusals.append(f"its role is {new.role}, and {old.role} is needed")
    if unreadable := why_unreadable(new, data_format):
        refusals.append(unreadable)
    requests = [*_more_memory(old, new, memory_bytes), *_more_ports(old, new)]
    if old.data and not new.data:
        requests.append("it does not use the data volume")
    if snapshots is Snapshots.NEVER and not reads_back(old, new):
        requests.append("there would be no way back: the old image cannot read what it writes")
    return Verdict(refusals, requests)


def why_unreadable(manifest: Manifest, data_format: int) -> str:
    """Why an image cannot use a data volume of this format, 0 for one that nobody has used; ''."""
    data = manifest.data
    if data is None or not data_format or data_format in data.reads:
        return ""
    known = ", ".join(map(str, data.reads))
    return f"the data volume has format {data_format}, and {manifest.title} reads only {known}"


def _more_memory(old: Manifest, new: Manifest, granted_bytes: int) -> Sequence[str]:
    before, wanted = granted_bytes or old.requests.memory_bytes, new.requests.memory_bytes
    mib = 1 << 20
    return [f"it wants {wanted // mib}M of memory, not {before // mib}M"] if wanted > before else []


def _more_ports(old: Manifest, new: Manifest) -> Sequence[str]:
    more = sorted(set(new.requests.ports) - set(old.requests.ports))
    return [f"it wants to answer on {', '.join(more)} too"] if more else []


def reads_back(old: Manifest, new: Manifest) -> bool:
    """Whether `old` can go on with what `new` has written."""
    return not (old.data and new.data) or new.data.format in old.data.reads
