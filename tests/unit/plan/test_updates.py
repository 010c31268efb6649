"""Which appliances may be updated now, and what is said of the others."""

# ruff: noqa: DTZ001 (windows are in the local time that clocks show)

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.health import Health
from agent.model.image import Image
from agent.model.swap import ImageTitle, Quarantined
from agent.model.update import DAY_MIN, Group, Outlook, Policy, Standing, Window
from agent.plan.swap import Verdict
from agent.plan.updates import Candidate, Wish, assess, in_window, is_newer, next_opening
from tests.fakes.samples import sample_image

OLD, NEW = sample_image(version="1"), sample_image(version="2")
TUESDAY = datetime(2026, 11, 24, 12)
MINUTE = timedelta(minutes=1)

windows = st.builds(
    Window,
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    st.integers(0, DAY_MIN - 1),
    st.integers(1, DAY_MIN),
)
times = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31))


# --- windows


def is_open(window: Window, now: datetime) -> bool:
    """The same, said differently: one of the days of the last two began it, and it has not ended."""
    midnights = (datetime(now.year, now.month, now.day) - timedelta(days=day) for day in range(2))
    starts = (
        midnight + timedelta(minutes=window.start_min)
        for midnight in midnights
        if midnight.weekday() in window.days
    )
    return any(start <= now < start + timedelta(minutes=window.length_min) for start in starts)


@given(windows, times)
def test_in_a_window(window: Window, now: datetime) -> None:
    assert in_window(window, now) == is_open(window, now)


@given(windows, times)
def test_a_window_opens_when_it_is_said_to(window: Window, now: datetime) -> None:
    opening = next_opening(window, now)
    assert now < opening <= now + timedelta(days=8)
    assert in_window(window, opening)
    hours = int((opening - now) / timedelta(hours=1))
    if not in_window(window, now):
        assert not any(in_window(window, now + timedelta(hours=hour)) for hour in range(hours))
        assert not in_window(window, opening - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("day", "hour", "minute", "expected"),
    [
        (29, 21, 59, False),
        (29, 22, 0, True),
        (29, 23, 59, True),
        (30, 0, 0, True),
        (30, 1, 59, True),
        (30, 2, 0, False),
        (30, 22, 0, False),
        (23, 1, 0, True),
    ],
)
def test_a_window_that_crosses_midnight_and_the_end_of_the_week(
    day: int, hour: int, minute: int, *, expected: bool
) -> None:
    sunday_night = Window((6,), 22 * 60, 4 * 60)
    assert in_window(sunday_night, datetime(2026, 11, day, hour, minute)) is expected


# --- images


@pytest.mark.parametrize(
    ("image", "than", "expected"),
    [
        (NEW, OLD, True),
        (OLD, NEW, False),
        (OLD, OLD, False),
        (sample_image(version="10"), sample_image(version="9"), True),
        (replace(OLD, imported_at=1.0), OLD, True),
        (sample_image("dns-knot", "9"), OLD, False),
    ],
)
def test_what_is_newer(image: Image, than: Image, *, expected: bool) -> None:
    assert is_newer(image, than) is expected


# --- one appliance


def candidate(name: str = "dns", **changes: Any) -> Candidate:
    """One that is due."""
    values: dict[str, Any] = {
        "policy": Policy.AUTO,
        "window": None,
        "group": None,
        "image": OLD,
        "newest": NEW,
        "health": Health.HEALTHY,
        "checked": "",
    }
    return Candidate(name, **{**values, **changes})


def outlook(*candidates: Candidate, name: str = "dns", **arguments: Any) -> Outlook:
    return assess(candidates, **{"now": TUESDAY, **arguments})[name]


def bad(image: Image, reason: str = "it died") -> tuple[Quarantined, ...]:
    return (Quarantined(ImageTitle(image.digest, image.manifest.reference), reason, 1),)


NIGHT = Window((6,), 180, 120)
CASES: list[tuple[dict[str, Any], Standing, str]] = [
    ({}, Standing.DUE, "will be updated"),
    ({"image": None}, Standing.NO_IMAGE, "it has no image that could start"),
    ({"newest": None}, Standing.UP_TO_DATE, "up to date"),
    ({"newest": OLD}, Standing.UP_TO_DATE, "up to date"),
    ({"image": NEW, "newest": OLD}, Standing.UP_TO_DATE, "up to date"),
    ({"quarantine": bad(NEW)}, Standing.QUARANTINED, "quarantined: it died"),
    ({"quarantine": bad(OLD)}, Standing.DUE, ""),
    ({"taken_back": True}, Standing.TAKEN_BACK, "taken back: it had this image"),
    ({"verdict": Verdict(refusals=("a", "b"))}, Standing.REFUSED, "refused: a; b"),
    ({"verdict": Verdict(requests=("a", "b"))}, Standing.ASKS_FOR_MORE, "asks for more: a; b"),
    ({"policy": Policy.MANUAL, "checked": None}, Standing.AVAILABLE, "update available (manual)"),
    ({"checked": None}, Standing.UNCHECKED, "not checked yet"),
    ({"policy": Policy.STAGE, "checked": None}, Standing.UNCHECKED, "not checked yet"),
    ({"checked": "no port"}, Standing.REFUSED, "refused: no port"),
    ({"policy": Policy.STAGE}, Standing.STAGED, "staged"),
    ({"health": Health.STOPPED}, Standing.WAITS, "it is stopped, and has to run"),
    ({"health": Health.DEGRADED}, Standing.DUE, ""),
    ({"window": NIGHT}, Standing.OUTSIDE_WINDOW, "outside its window until Sun 2026-11-29 03:00"),
    ({"busy": "rollback"}, Standing.WAITS, "a rollback is under way"),
]


@pytest.mark.parametrize(("changes", "standing", "reason"), CASES)
def test_an_appliance_of_its_own(changes: dict[str, Any], standing: Standing, reason: str) -> None:
    found = outlook(candidate(**changes))
    assert (found.standing, reason in found.reason) == (standing, True)


def test_a_window_that_is_open() -> None:
    assert outlook(candidate(window=NIGHT), now=datetime(2026, 11, 29, 4)).standing is Standing.DUE


STILL = {Standing.NO_IMAGE, Standing.UP_TO_DATE, Standing.QUARANTINED}


@pytest.mark.parametrize(("changes", "standing", "_reason"), CASES)
def test_one_that_was_named(changes: dict[str, Any], standing: Standing, _reason: str) -> None:
    """Neither policy nor window nor what its administrator did before; a swap tells the rest."""
    expected = standing if standing in STILL or changes.get("busy") else Standing.DUE
    assert outlook(candidate(**changes), wish=Wish(frozenset({"dns"}))).standing is expected


def test_trying_again() -> None:
    again = Wish(retry=True)
    assert outlook(candidate(quarantine=bad(NEW)), wish=again).standing is Standing.DUE
    assert outlook(candidate(taken_back=True), wish=again).standing is Standing.DUE
    manual = candidate(quarantine=bad(NEW), policy=Policy.MANUAL)
    assert outlook(manual, wish=again).standing is Standing.AVAILABLE
    assert outlook(manual, wish=Wish(frozenset({"dns"}), retry=True)).standing is Standing.DUE


def test_one_that_had_its_turn_in_this_run() -> None:
    assert outlook(candidate(), tried={"dns"}).standing is Standing.WAITS


# --- groups


def members(count: int, *, healthy: int = 1, **changes: Any) -> list[Candidate]:
    return [
        candidate(f"dns{number}", group=Group("dns", healthy), **changes) for number in range(1, count + 1)
    ]


def test_one_member_at_a_time() -> None:
    one, two, three = members(3)
    found = assess([three, two, one], now=TUESDAY)
    assert found["dns1"].standing is Standing.DUE
    for name in ("dns2", "dns3"):
        assert found[name] == Outlook(Standing.GROUP_WAITS, "group dns waits for dns1")


def test_one_that_was_named_waits_for_none_that_was_not() -> None:
    one, two = members(2)
    assert outlook(one, two, name="dns2", wish=Wish(frozenset({"dns2"}))).standing is Standing.DUE


def test_whatever_is_under_way_in_a_group_is_waited_for() -> None:
    one, two = members(2)
    assert outlook(one, replace(two, busy="swap"), name="dns1").reason == "group dns waits for dns2"
    assert outlook(one, replace(two, busy="swap", newest=OLD), name="dns1").standing is Standing.GROUP_WAITS


@pytest.mark.parametrize(
    ("healthy", "states", "standing"),
    [
        (1, [Health.HEALTHY], Standing.DUE),
        (1, [Health.DEGRADED], Standing.GROUP_WAITS),
        (1, [Health.STARTING], Standing.GROUP_WAITS),
        (1, [Health.STOPPED, Health.HEALTHY], Standing.DUE),
        (2, [Health.STOPPED, Health.HEALTHY], Standing.GROUP_WAITS),
        (2, [Health.HEALTHY, Health.HEALTHY], Standing.DUE),
        (0, [Health.FAILED], Standing.DUE),
        (0, [], Standing.DUE),
        (1, [], Standing.GROUP_WAITS),
    ],
)
def test_enough_others_are_healthy(healthy: int, states: list[Health], standing: Standing) -> None:
    group = Group("dns", healthy)
    others = [
        candidate(f"other{number}", group=group, newest=OLD, health=health)
        for number, health in enumerate(states)
    ]
    assert outlook(candidate(group=group), *others).standing is standing


def test_the_largest_number_that_a_member_states_counts() -> None:
    one, two = candidate("dns1", group=Group("dns", 0)), candidate("dns2", group=Group("dns", 2))
    assert outlook(one, two, name="dns1").reason == "group dns waits: 1 of 1 others healthy, 2 needed"


def test_what_does_not_run_is_not_missed() -> None:
    one, two = members(2)
    named = Wish(frozenset({"dns1"}))
    stopped, sick = replace(one, health=Health.STOPPED), replace(two, health=Health.DEGRADED)
    assert outlook(stopped, sick, name="dns1", wish=named).standing is Standing.DUE


def test_what_failed_in_one_member_is_tried_in_no_other() -> None:
    one, two = members(2)
    ill = replace(one, quarantine=bad(NEW))
    assert outlook(ill, two, name="dns2").reason == "quarantined in dns1: it died"
    apart = replace(two, group=Group("web"))
    assert outlook(ill, apart, name="dns2").standing is Standing.GROUP_WAITS
    assert outlook(ill, replace(two, group=None), name="dns2").standing is Standing.DUE


def test_a_group_in_which_one_failed_is_left_alone() -> None:
    one, two = members(2)
    other = candidate("web")
    found = assess([one, two, other], now=TUESDAY, tried={"dns1"}, stopped={"dns": "dns1 failed"})
    assert found["dns2"] == Outlook(Standing.GROUP_WAITS, "group dns waits: dns1 failed")
    assert found["web"].standing is Standing.DUE


healths = st.sampled_from(Health)


@given(
    st.lists(
        st.builds(
            candidate,
            st.integers(0, 9).map("a{}".format),
            group=st.none() | st.builds(Group, st.sampled_from(["x", "y"]), st.integers(0, 3)),
            health=healths,
            busy=st.sampled_from(["", "", "swap"]),
            newest=st.sampled_from([OLD, NEW]),
        ),
        max_size=8,
        unique_by=lambda entry: entry.name,
    ),
    st.sets(st.integers(0, 9).map("a{}".format)),
)
def test_a_group_never_falls_below_its_number(candidates: list[Candidate], named: set[str]) -> None:
    found = assess(candidates, now=TUESDAY, wish=Wish(frozenset(named)))
    assert found.keys() == {entry.name for entry in candidates}
    for name in {entry.group.name for entry in candidates if entry.group}:
        group = [entry for entry in candidates if entry.group and entry.group.name == name]
        wanted_now = [entry for entry in group if not named or entry.name in named]
        due = [entry for entry in wanted_now if found[entry.name].standing is Standing.DUE]
        assert len(due) + sum(bool(entry.busy) for entry in group) <= max(
            1, sum(bool(entry.busy) for entry in group)
        )
        for entry in due:
            left = sum(other.health is Health.HEALTHY for other in group if other is not entry)
            wanted = max(other.group.healthy for other in group if other.group)
            assert left >= wanted or entry.health in {Health.STOPPED, Health.FAILED}
