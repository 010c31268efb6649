"""Runs coroutines as tests, and fails those that leave a task, a thread, a child or a descriptor behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 30.0


def run_coroutine_test(item: pytest.Function) -> bool | None:
    """The body of a `pytest_pyfunc_call` hook: runs `async def` tests, and leaves all others to pytest."""
    if not inspect.iscoroutinefunction(item.obj):
        return None
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    run_alone(item.obj(**arguments))
    return True


def run_alone(test: Coroutine[Any, Any, None]) -> None:
    """Run `test` in a loop of its own; fails where it leaves a task, or an error that nobody has seen."""
    unseen: list[str] = []

    async def supervised() -> set[str]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unseen.append(repr(context)))
        async with asyncio.timeout(TIMEOUT_S):
            await test
        # What was cancelled or disconnected with the test's last line may finish.
        for _ in range(3):
            await asyncio.sleep(0)
        return {repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}}

    left = asyncio.run(supervised())
    # What the test made is young: futures that nobody looked at complain when they are collected.
    gc.collect(1)
    assert not left, f"tasks left behind: {left}"
    assert not unseen, f"errors that nobody awaited: {unseen}"


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fails where the block leaves a child process, a thread or an open descriptor."""
    before = _possessions()
    yield
    if _possessions() - before:
        # Cycles may hold on to what is no longer used. To collect them after each test would take longer
        # than the tests do.
        gc.collect()
        # asyncio's threads that wait for a child (Python 3.11) end when it has ended, and not sooner.
        for thread in threading.enumerate():
            if thread.name.startswith("waitpid-"):
                thread.join(timeout=1.0)
    left = _possessions() - before
    assert not left, f"left behind: {sorted(left)}"


def _possessions() -> set[str]:
    threads = {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}
    return threads | _children() | _descriptors()


def _children() -> set[str]:
    found: set[str] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(f"child {pid}" for pid in path.read_text(encoding="ascii").split())
        except OSError:
            continue  # a thread that has just ended
    return found


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are numbers)
        try:
            found.add(f"descriptor {name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the directory's own
    return found
