"""Progress: counting on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re

from agent.util.progress import SILENT, TextProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines() -> None:
    stream = io.StringIO()
    progress = TextProgress(stream)
    with progress.step("Packing"):
        progress.note("On the way")
    assert stream.getvalue() == "Packing …\nOn the way\n"


def test_a_terminal_sees_the_seconds() -> None:
    stream = Terminal()
    with TextProgress(stream).step("Packing"):
        pass
    assert re.search(r"Packing … 0 s\r\x1b\[KPacking: 0\.\d s\n$", stream.getvalue())


def test_silence() -> None:
    SILENT.note("nothing")
    with SILENT.step("nothing"):
        pass
