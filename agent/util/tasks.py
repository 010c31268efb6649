"""Small helpers around asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def completed(function: Callable[[], _T]) -> _T:
    """A plain function as a coroutine, for callers that await every answer alike."""
    return function()
