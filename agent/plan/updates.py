"""Which appliances may be updated now, and why the others may not. Pure; agent.core.updates does it.

What is looked at, in this order, for an appliance that nobody named; those that were named skip what is
marked with a dash, for a swap tells for itself what is against it:

      no image, up to date      nothing to be done
      quarantined               it failed here, or in another member of the group
    - taken back                its administrator went back from this image
    - refused, asks for more    what the manifests tell
    - policy                    manual: shown; stage: checked and shown
    - check                     as a swap checks before it stops anything
    - window, does not run      a guest that does not run could not show whether the new image does
      an operation under way
      its group                 one at a time, none after a failure, and enough others are healthy
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.model.health import Health
from agent.model.image import Image
from agent.model.swap import Quarantined
from agent.model.update import DAY_MIN, DAYS, Group, Outlook, Policy, Standing, Window
from agent.model.versions import version_key
from agent.plan.swap import Verdict


@dataclass(frozen=True, slots=True)
class Candidate:
    """An appliance as updates see it.

    `image` is what it runs, None where it could not start; `newest` the newest that its configuration may
    mean. `busy` is the kind of the operation under way. `taken_back` is whether it had `newest` once.
    `checked` is what the check of `newest` found, '' for nothing, None where it was not checked.
    """

    name: str
    policy: Policy
    window: Window | None
    group: Group | None
    image: Image | None
    newest: Image | None
    health: Health
    busy: str = ""
    quarantine: tuple[Quarantined, ...] = ()
    taken_back: bool = False
    verdict: Verdict = field(default_factory=Verdict)
    checked: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked for: appliances by name, or by no name those whose policy is `auto`; with `retry`
    also what is quarantined."""

    names: frozenset[str] = frozenset()
    retry: bool = False

    def means(self, name: str) -> bool:
        """Whether an appliance is to be updated, should it be due."""
        return not self.names or name in self.names


# --- windows


def in_window(window: Window, now: datetime) -> bool:
    """Whether `now`, in local time, is in a window."""
    time_min = now.hour * 60 + now.minute
    today, yesterday = now.weekday(), (now.weekday() - 1) % len(DAYS)
    end_min = window.start_min + window.length_min
    return (today in window.days and window.start_min <= time_min < end_min) or (
        yesterday in window.days and time_min < end_min - DAY_MIN
    )


def next_opening(window: Window, now: datetime) -> datetime:
    """When a window opens the next time, after `now`."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = (midnight + timedelta(days=day, minutes=window.start_min) for day in range(len(DAYS) + 1))
    return next(start for start in starts if start > now and start.weekday() in window.days)


# --- images


def is_newer(image: Image, than: Image) -> bool:
    """Whether an image follows another: one of the same name with a higher version, or imported later."""
    return image.manifest.name == than.manifest.name and _age(image) > _age(than)


def _age(image: Image) -> tuple[object, ...]:
    return version_key(image.manifest.version), image.imported_at


# --- what may be done


def assess(
    candidates: Sequence[Candidate],
    *,
    now: datetime,
    wish: Wish | None = None,
    tried: Collection[str] = (),
    stopped: Mapping[str, str] | None = None,
) -> dict[str, Outlook]:
    """How each appliance stands; those that are `due` may begin, all at once.

    `tried` are appliances that had their turn, `stopped` groups in which nothing more is to be tried, each
    with the reason.
    """
    wish, stopped = wish or Wish(), stopped or {}
    outlooks: dict[str, Outlook] = {}
    due: set[str] = set()
    for candidate in sorted(candidates, key=lambda candidate: candidate.name):
        members = _others(candidate, candidates)
        outlook = _own(candidate, members, now=now, wish=wish)
        if outlook.standing is Standing.DUE and candidate.name in tried:
            outlook = Outlook(Standing.WAITS, "waits: it had its turn")
        if outlook.standing is Standing.DUE:
            outlook = _in_group(candidate, members, due=due, stopped=stopped) or outlook
        if outlook.standing is Standing.DUE and wish.means(candidate.name):
            due.add(candidate.name)
        outlooks[candidate.name] = outlook
    return outlooks


def _others(candidate: Candidate, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The other members of its group."""
    group = candidate.group
    return [
        other
        for other in candidates
        if group and other.group and other.group.name == group.name and other.name != candidate.name
    ]


def _own(candidate: Candidate, members: Collection[Candidate], *, now: datetime, wish: Wish) -> Outlook:
    """How it stands as far as the state of its group has no part in it."""
    if candidate.image is None:
        return Outlook(Standing.NO_IMAGE, "it has no image that could start")
    if candidate.newest is None or not is_newer(candidate.newest, candidate.image):
        return Outlook(Standing.UP_TO_DATE, "up to date")
    if not wish.retry and (why := _quarantined(candidate, candidate.newest, members)):
        return Outlook(Standing.QUARANTINED, why)
    if candidate.name not in wish.names:
        outlook = _unasked(candidate, wish=wish) or _hindered(candidate, now=now)
        if outlook:
            return outlook
    if candidate.busy:
        return Outlook(Standing.WAITS, f"waits: a {candidate.busy} is under way")
    return Outlook(Standing.DUE, "will be updated")


def _quarantined(candidate: Candidate, newest: Image, members: Iterable[Candidate]) -> str:
    """Why an image is not to be trusted: what failed in one member of a group is tried in no other."""
    for owner in (candidate, *members):
        for entry in owner.quarantine:
            if entry.image.digest == newest.digest:
                where = "" if owner is candidate else f" in {owner.name}"
                return f"quarantined{where}: {entry.reason}"
    return ""


def _unasked(candidate: Candidate, *, wish: Wish) -> Outlook | None:
    """What keeps an image from being swapped to by itself, whenever that were; None where nothing does."""
    if candidate.taken_back and not wish.retry:
        return Outlook(Standing.TAKEN_BACK, "taken back: it had this image, and was given another one")
    if candidate.verdict.refusals:
        return Outlook(Standing.REFUSED, f"refused: {'; '.join(candidate.verdict.refusals)}")
    if candidate.verdict.requests:
        return Outlook(Standing.ASKS_FOR_MORE, f"asks for more: {'; '.join(candidate.verdict.requests)}")
    if candidate.policy is Policy.MANUAL:
        return Outlook(Standing.AVAILABLE, "update available (manual)")
    if candidate.checked is None:
        return Outlook(Standing.UNCHECKED, "update available, not checked yet")
    if candidate.checked:
        return Outlook(Standing.REFUSED, f"refused: {candidate.checked}")
    return Outlook(Standing.STAGED, "staged") if candidate.policy is Policy.STAGE else None


def _hindered(candidate: Candidate, *, now: datetime) -> Outlook | None:
    """What keeps it from being swapped right now; None where nothing does."""
    if candidate.health not in _UP:
        why = f"waits: it is {candidate.health}, and has to run to show whether the new image does"
        return Outlook(Standing.WAITS, why)
    if candidate.window is None or in_window(candidate.window, now):
        return None
    opening = next_opening(candidate.window, now)
    when = f"{DAYS[opening.weekday()]} {opening:%Y-%m-%d %H:%M}"
    return Outlook(Standing.OUTSIDE_WINDOW, f"outside its window until {when}")


_UP = frozenset({Health.HEALTHY, Health.DEGRADED})


def _in_group(
    candidate: Candidate, members: Sequence[Candidate], *, due: Collection[str], stopped: Mapping[str, str]
) -> Outlook | None:
    """What in its group keeps it from being swapped; None where nothing does."""
    group = candidate.group
    if group is None:
        return None
    if why := stopped.get(group.name):
        return Outlook(Standing.GROUP_WAITS, f"group {group.name} waits: {why}")
    for other in members:
        if other.busy or other.name in due:
            return Outlook(Standing.GROUP_WAITS, f"group {group.name} waits for {other.name}")
    wanted = max([group.healthy, *(other.group.healthy for other in members if other.group)])
    healthy = sum(other.health is Health.HEALTHY for other in members)
    # What does not run is not missed while it is swapped.
    if healthy >= wanted or candidate.health in {Health.STOPPED, Health.FAILED}:
        return None
    why = f"{healthy} of {len(members)} others healthy, {wanted} needed"
    return Outlook(Standing.GROUP_WAITS, f"group {group.name} waits: {why}")
