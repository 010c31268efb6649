"""Progress of long steps: a line that counts on a terminal, plain lines elsewhere.

Whatever takes long gets a `Progress`; a daemon or a test passes `SILENT`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TextIO

_INTERVAL_S = 0.25
_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Says nothing; also what `SILENT` is."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    @contextlib.contextmanager
    def step(self, label: str) -> Iterator[None]:  # noqa: ARG002 (what it is for is said by those that write)
        """A step that takes as long as the block."""
        yield


SILENT = Progress()


class TextProgress(Progress):
    """Writes to a stream, usually standard error, so that standard output stays a result."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()

    def note(self, text: str) -> None:
        """One line of its own."""
        self._write(f"{text}\n")

    @contextlib.contextmanager
    def step(self, label: str) -> Iterator[None]:
        """The label at once; on a terminal the seconds count up beside it and stay there at the end."""
        if not self._is_terminal:
            self._write(f"{label} …\n")
            yield
            return
        started_s = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(
            target=self._tick, args=(label, started_s, done), name="progress", daemon=True
        )
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
            self._write(f"{_ERASE_LINE}{label}: {time.monotonic() - started_s:.1f} s\n")

    def _tick(self, label: str, started_s: float, done: threading.Event) -> None:
        while True:
            self._write(f"{_ERASE_LINE}{label} … {time.monotonic() - started_s:.0f} s")
            if done.wait(_INTERVAL_S):
                return

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
