"""Operations: one at a time for each appliance, watched and cancelled by number, however their work ends."""

from __future__ import annotations

import asyncio

import pytest

from agent.core.operations import ENDED_KEPT, Operation, Operations, OperationState
from agent.model.errors import ApplianceError, HostError, Problem


async def succeed(_operation: Operation) -> OperationState:
    return OperationState.SUCCEEDED


async def until_cancelled(operation: Operation) -> OperationState:
    await operation.cancelled()
    return OperationState.CANCELLED


async def refuse(_operation: Operation) -> OperationState:
    raise HostError("No space left.", remedy="Free some.")


@pytest.fixture
def told() -> list[tuple[int, str, OperationState]]:
    return []


@pytest.fixture
def operations(told: list[tuple[int, str, OperationState]]) -> Operations:
    return Operations(lambda operation: told.append((operation.number, operation.phase, operation.state)))


async def test_a_life(operations: Operations, told: list[tuple[int, str, OperationState]]) -> None:
    async def work(operation: Operation) -> OperationState:
        operations.progress(operation, "prepare", "checking")
        return OperationState.SUCCEEDED

    operation = operations.begin("swap", "dns", work)
    assert (operation.state, operation.ended_at_us) == (OperationState.RUNNING, 0)
    assert await operations.finished(operation) is operation
    assert told == [
        (1, "", OperationState.RUNNING),
        (1, "prepare", OperationState.RUNNING),
        (1, "prepare", OperationState.SUCCEEDED),
    ]
    assert operation.ended_at_us >= operation.started_at_us > 0
    assert operations.running("dns") is None
    assert operations.busy() == set()


async def test_one_at_a_time_for_each_appliance(operations: Operations) -> None:
    first = operations.begin("swap", "dns", until_cancelled)
    operations.progress(first, "soak", "watching")
    with pytest.raises(ApplianceError, match=r"dns: a swap is under way \(soak\)") as caught:
        operations.begin("rollback", "dns", succeed)
    assert caught.value.problem is Problem.BUSY
    other = operations.begin("swap", "web", succeed)
    assert operations.busy() == {"dns", "web"}
    assert operations.running("dns") is first
    await operations.finished(other)
    operations.cancel(first.number)
    await operations.finished(first)
    again = operations.begin("rollback", "dns", succeed)
    assert (await operations.finished(again)).state is OperationState.SUCCEEDED


async def test_an_error_is_a_failure_that_says_why(operations: Operations) -> None:
    operation = await operations.finished(operations.begin("swap", "dns", refuse))
    assert (operation.state, operation.message) == (OperationState.FAILED, "No space left. Free some.")


async def test_whoever_asks_for_an_end_waits_for_it(operations: Operations) -> None:
    operation = operations.begin("swap", "dns", until_cancelled)
    assert not operation.cancel_requested
    operations.cancel(operation.number)
    assert (operation.cancel_requested, operation.state) == (True, OperationState.RUNNING)
    assert (await operations.finished(operation)).state is OperationState.CANCELLED
    operations.cancel(operation.number)


async def test_a_number_that_nobody_has(operations: Operations) -> None:
    for ask in (operations.get, operations.cancel):
        with pytest.raises(ApplianceError, match="no operation 7") as caught:
            ask(7)
        assert caught.value.problem is Problem.NOT_FOUND


async def test_only_the_last_that_ended_can_be_looked_at(operations: Operations) -> None:
    running = operations.begin("swap", "web", until_cancelled)
    for _ in range(ENDED_KEPT + 2):
        await operations.finished(operations.begin("swap", "dns", succeed))
    numbers = [operation.number for operation in operations.all()]
    assert numbers == [running.number, *range(3, ENDED_KEPT + 4)]
    assert operations.get(3).state is OperationState.SUCCEEDED
    operations.cancel(running.number)
    await operations.finished(running)


async def test_work_is_left_where_it_stands(operations: Operations) -> None:
    reached: list[str] = []

    async def work(_operation: Operation) -> OperationState:
        reached.append("begun")
        await asyncio.sleep(60)
        raise AssertionError

    operation = operations.begin("swap", "dns", work)
    await asyncio.sleep(0)
    await operations.close()
    assert (reached, operation.state) == (["begun"], OperationState.CANCELLED)
    assert operation.ended_at_us


async def test_what_nobody_foresaw_is_raised_where_the_daemon_waits(operations: Operations) -> None:
    async def work(_operation: Operation) -> OperationState:
        raise RuntimeError("no such thing")

    operation = operations.begin("swap", "dns", work)
    with pytest.raises(RuntimeError, match="no such thing"):
        await asyncio.wait_for(operations.surprise(), 5)
    assert operation.state is OperationState.CANCELLED
