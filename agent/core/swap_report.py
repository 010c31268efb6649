"""What is told of swaps: a phrase while one is under way, a sentence and an event when it has ended."""

from __future__ import annotations

from agent.model.swap import HistoryEntry, ImageTitle, Phase, Result, Swap
from agent.util.journal import Event, log_event

_EVENTS = {
    Result.COMMITTED: Event.SWAP_COMMITTED,
    Result.REFUSED: Event.SWAP_REFUSED,
    Result.ROLLED_BACK: Event.SWAP_ROLLED_BACK,
    Result.FAILED: Event.SWAP_FAILED,
}
_RECONFIGURATION_EVENTS = {
    Result.COMMITTED: Event.RECONFIGURED,
    Result.REFUSED: Event.RECONFIGURATION_REFUSED,
    Result.ROLLED_BACK: Event.RECONFIGURATION_UNDONE,
    Result.FAILED: Event.SWAP_FAILED,
}


def phrase(swap: Swap) -> str:
    """What is being done."""
    old, new = _names(swap.old, swap.new, swap.old_generation, swap.new_generation)
    match swap.phase:
        case Phase.PREPARE:
            return f"checking {new}"
        case Phase.SWITCH:
            return f"leaving {old}"
        case Phase.TRIAL:
            return f"trying {new}"
        case Phase.SOAK:
            return f"watching {new} for {swap.soak_s:g} s"
        case Phase.ROLLBACK:
            return f"going back to {old}: {swap.reason}"


def _names(old: ImageTitle, new: ImageTitle, old_generation: str, new_generation: str) -> tuple[str, str]:
    """What a swap comes from and goes to, by what is different."""
    if old.digest != new.digest:
        return old.reference, new.reference
    return f"configuration {old_generation}", f"configuration {new_generation}"


def sentence(entry: HistoryEntry) -> str:
    """How it ended."""
    old, new = _names(entry.old, entry.new, entry.old_generation, entry.new_generation)
    outage = f"; no answer for {entry.downtime_ms:.0f} ms" if entry.downtime_ms else ""
    match entry.result:
        case Result.COMMITTED:
            verb = "swapped" if entry.changed_image else "changed"
            return f"{verb} from {old} to {new}{outage}."
        case Result.REFUSED:
            return f"stays with {old}, {new} was refused: {entry.reason}"
        case Result.ROLLED_BACK:
            return f"back to {old}, {new} failed: {entry.reason}"
        case Result.FAILED:
            return f"neither {new} nor {old} runs: {entry.reason}"


def report(name: str, entry: HistoryEntry) -> None:
    """Write the event of a swap that has ended."""
    events = _EVENTS if entry.changed_image else _RECONFIGURATION_EVENTS
    log_event(
        events[entry.result],
        f"Appliance {name}: {sentence(entry)}",
        appliance=name,
        image=entry.new.reference,
        image_digest=str(entry.new.digest),
        old_image=entry.old.reference,
        old_image_digest=str(entry.old.digest),
        generation=entry.new_generation,
        old_generation=entry.old_generation,
        operation=str(entry.number),
        result=str(entry.result),
        reason=entry.reason,
        downtime_msec=str(round(entry.downtime_ms)) if entry.downtime_ms else "",
    )
