"""How results look: aligned tables with a header as systemctl prints them, or JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STYLES = {"good": "\x1b[32m", "warn": "\x1b[33m", "bad": "\x1b[1;31m", "dim": "\x1b[2m"}
_RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Style:
    """What the user asked for: `json` is '', 'pretty' or 'short'; colours only where a terminal shows
    them."""

    json: str = ""
    legend: bool = True

    @property
    def colours(self) -> bool:
        """Whether standard output understands them and the user has not refused (https://no-color.org)."""
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, colours: bool) -> str:
    """`text` as good, warn, bad or dim."""
    return f"{_STYLES[style]}{text}{_RESET}" if colours and style in _STYLES else text


def format_bytes(size_bytes: int) -> str:
    """As people read it, rounded: 5779456 → `5.5M`."""
    power = min(max(size_bytes.bit_length() - 1, 0) // 10, 4)
    return f"{size_bytes / (1 << 10 * power):.1f}{'BKMGT'[power]}" if power else f"{size_bytes}B"


def format_time(time_us: int) -> str:
    """CLOCK_REALTIME in microseconds, in the host's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_us / 1_000_000))


def print_json(value: Any, style: Style) -> None:
    """One JSON document; `short` is one line."""
    print(json.dumps(value, indent=2 if style.json == "pretty" else None, ensure_ascii=False))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style,
    *,
    paints: Mapping[str, str] | None = None,
    what: str = "",
) -> None:
    """Rows of text under their header, and a count of `what`. Cells that are keys of `paints` are painted
    so."""
    widths = [max([len(column), *(len(row[index]) for row in rows)]) for index, column in enumerate(columns)]
    if style.legend:
        header = "  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True))
        print(paint(header.rstrip(), "dim", colours=style.colours))
    for row in rows:
        cells = [
            paint(cell, (paints or {}).get(cell, ""), colours=style.colours) + " " * (width - len(cell))
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())
    if style.legend and what:
        print(f"\n{len(rows)} {what}{'' if len(rows) == 1 else 's'}.")
