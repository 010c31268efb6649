"""Asking from outside: when, how often, and what follows from the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import prober as module
from agent.core.prober import IN_A_ROW, QUICK_S, STEADY_S, Prober, Record, Target, target_of
from agent.model.health import UnitStatus
from agent.model.probe import PingProbe, TcpProbe
from tests.fakes.probes import FakeProbes
from tests.fakes.world import World

PING, WEB = PingProbe(), TcpProbe(80)
ADDRESS = ip_address("10.88.0.80")
TARGET = Target((PING, WEB), ADDRESS, main_pid=7, started_at_us=1)
SILENT = "no answer"


# --- the record of one target


def record_of(*answers: str) -> Record:
    record = Record()
    for answer in answers:
        record.note(answer)
    return record


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ((), None),
        (("a",), None),
        (("a", "a"), None),
        (("a", "b", "c"), "c"),
        (("",), ""),
        (("", "a", "a"), ""),
        (("a", "a", "", "a", "a"), ""),
        (("a", "a", "a", "", "a"), ""),
        (("a", "a", "a", "b", "b"), "a"),
        (("a", "a", "a", "b", "b", "b"), "b"),
        (("a", "a", "a", "b", "a", "b", "a", "b"), "a"),
    ],
)
def test_three_failures_in_a_row_are_a_verdict_and_one_success_clears_it(
    answers: tuple[str, ...], verdict: str | None
) -> None:
    assert record_of(*answers).verdict == verdict


@pytest.mark.parametrize(
    ("answers", "interval_s"),
    [
        ((), QUICK_S),
        (("", ""), QUICK_S),
        (("", "", ""), STEADY_S),
        (("",) * 9, STEADY_S),
        (("", "", "", "a"), QUICK_S),
        (("", "", "", "a", "", ""), QUICK_S),
        (("", "", "", "a", "", "", ""), STEADY_S),
    ],
)
def test_the_pace(answers: tuple[str, ...], interval_s: float) -> None:
    assert record_of(*answers).interval_s == interval_s


@given(st.lists(st.sampled_from(["", "a", "b"])))
def test_a_verdict_is_what_the_last_answers_say(answers: list[str]) -> None:
    record = record_of(*answers)
    last = answers[-IN_A_ROW:]
    if answers and not answers[-1]:
        assert record.verdict == ""
    elif len(last) == IN_A_ROW and all(last):
        assert record.verdict
    elif record.verdict:
        raise AssertionError("a verdict without three failures")


# --- the target of an appliance


async def test_what_is_asked_follows_from_plan_and_unit(world: World) -> None:
    world.files.write("appliances/dns.yaml", "image: dns-nsd\nhealth: {probe: ping}\n")
    await world.reconciler.apply(restart=True)
    plan = world.reconciler.plan.appliances["dns"]
    active = UnitStatus(active_state="active", main_pid=7, started_at_us=9)
    assert target_of(plan, active) == Target((PING,), ip_address("10.88.0.2"), 7, 9)
    for state in ("inactive", "activating", "deactivating", "failed"):
        assert target_of(plan, replace(active, active_state=state)) is None
    assert target_of(replace(plan, ports=()), active) is None
    assert target_of(replace(plan, appliance=replace(plan.appliance, probes=())), active) is None


# --- the prober


class Bench:
    """A prober at work, and what it says. Of the pace only the order of long and short is left."""

    def __init__(self, probes: FakeProbes) -> None:
        self.probes = probes
        self.verdicts: list[tuple[str, str]] = []
        self.prober = Prober(probes, lambda name, verdict: self.verdicts.append((name, verdict)))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 (what is waited for is done by threads)
            await asyncio.sleep(0.001)

    async def rounds(self, count: int) -> None:
        """Wait until so many more questions were asked and their answers noted."""
        goal = len(self.probes.asked) + count
        await self.until(lambda: len(self.probes.asked) >= goal)
        await asyncio.sleep(0.005)


@asynccontextmanager
async def probing(probes: FakeProbes) -> AsyncIterator[Bench]:
    bench = Bench(probes)
    task = asyncio.ensure_future(bench.prober.run())
    await asyncio.sleep(0)
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.wait([task])
        bench.prober.close()
    assert task.cancelled()


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> FakeProbes:
    monkeypatch.setattr(module, "QUICK_S", 0.001)
    monkeypatch.setattr(module, "STEADY_S", 3600.0)
    return FakeProbes()


async def test_an_appliance_that_answers_is_asked_three_times_and_then_rarely(probes: FakeProbes) -> None:
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.rounds(6)
        await asyncio.sleep(0.05)
    assert probes.asked == [(PING, ADDRESS), (WEB, ADDRESS)] * 3
    assert bench.verdicts == [("web", "")] * 3
    assert all(name.startswith("probe") for name in probes.threads)


async def test_one_that_does_not_is_asked_on_and_judged_by_the_first_probe_that_fails(
    probes: FakeProbes,
) -> None:
    probes.answers = {PING: SILENT, WEB: "closed"}
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.rounds(6)
        assert {probe for probe, _ in probes.asked} == {PING}
        assert set(bench.verdicts) == {("web", SILENT)}
        probes.answers.clear()
        await bench.until(lambda: bench.verdicts[-1] == ("web", ""))


async def test_a_stopped_appliance_is_asked_no_more_and_its_verdict_is_gone(probes: FakeProbes) -> None:
    probes.answers = {PING: SILENT}
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.until(lambda: ("web", SILENT) in bench.verdicts)
        bench.prober.follow("web", None)
        bench.prober.follow("web", None)
        asked = len(probes.asked)
        await asyncio.sleep(0.02)
        assert len(probes.asked) <= asked + 1
        assert bench.verdicts[-2:] == [("web", SILENT), ("web", "")]


async def test_a_new_guest_has_a_new_record_and_keeps_the_verdict_until_it_has_answered(
    probes: FakeProbes,
) -> None:
    probes.answers = {PING: SILENT}
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.until(lambda: ("web", SILENT) in bench.verdicts)
        bench.prober.follow("web", replace(TARGET, main_pid=8))
        told = len(bench.verdicts)
        await bench.rounds(1)
        assert set(bench.verdicts[told:]) <= {("web", SILENT)}
        await bench.until(lambda: len(bench.verdicts) > told)


async def test_the_same_target_again_changes_nothing(probes: FakeProbes) -> None:
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.rounds(6)
        bench.prober.follow("web", replace(TARGET))
        await asyncio.sleep(0.02)
    assert len(probes.asked) == 6


async def test_targets_from_before_it_runs_are_asked_when_it_does(probes: FakeProbes) -> None:
    early = Bench(probes)
    early.prober.follow("web", TARGET)
    early.prober.follow("dns", replace(TARGET, probes=(PING,)))
    early.prober.follow("dns", None)
    await asyncio.sleep(0.01)
    assert probes.asked == []
    task = asyncio.ensure_future(early.prober.run())
    await early.rounds(6)
    task.cancel()
    await asyncio.wait([task])
    early.prober.close()
    assert {name for name, _ in early.verdicts if name == "web"} == {"web"}


async def test_a_silent_guest_keeps_nobody_from_shutting_down(probes: FakeProbes) -> None:
    probes.gate.clear()
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.until(lambda: bool(probes.asked))
        asyncio.get_running_loop().call_later(0.01, probes.gate.set)
    assert bench.verdicts == []


async def test_what_a_guest_does_to_a_library_is_an_answer_too(probes: FakeProbes) -> None:
    probes.answers = {PING: IndexError("list index out of range")}
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.until(lambda: bool(bench.verdicts))
    assert bench.verdicts[0] == ("web", "its answer could not be read (IndexError)")


async def test_asking_once(probes: FakeProbes) -> None:
    async with probing(probes) as bench:
        assert await bench.prober.ask("web", (PING, WEB), ADDRESS) == ""
        probes.answers = {WEB: SILENT}
        assert await bench.prober.ask("web", (PING, WEB), ADDRESS) == SILENT
        assert bench.verdicts == []


async def test_a_success_when_asked_once_clears_a_verdict_and_a_failure_makes_none(
    probes: FakeProbes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes.answers = {PING: SILENT}
    async with probing(probes) as bench:
        bench.prober.follow("web", TARGET)
        await bench.until(lambda: ("web", SILENT) in bench.verdicts)
        monkeypatch.setattr(module, "QUICK_S", 3600.0)
        await bench.rounds(1)
        told = len(bench.verdicts)
        for _ in range(5):
            assert await bench.prober.ask("web", (PING,), ADDRESS) == SILENT
        assert len(bench.verdicts) == told
        probes.answers.clear()
        assert await bench.prober.ask("web", (PING,), ADDRESS) == ""
        assert bench.verdicts[told:] == [("web", "")]
