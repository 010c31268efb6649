"""Sizes, time spans and rates as systemd writes them (systemd.time(7), the suffixes of MemoryMax=, and
those of Rate= in systemd.network(5))."""

from __future__ import annotations

import re

_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,12})([KMGTB]?)")

_SPANS = {
    "us": 1e-6,
    "usec": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_SPAN = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]*)")

_RATES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_RATE = re.compile(r"([0-9]{1,12})([KMG]?)")


def parse_size(text: str) -> int | None:
    """`48M` → bytes, powers of 1024; None where it is no size."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _SIZES[match[2]] if match else None


def parse_span(text: str) -> float | None:
    """`1min 30s`, `500ms`, `5` → seconds; None where it is no time span."""
    total, position = 0.0, 0
    while position < len(text.rstrip()):
        match = _SPAN.match(text, position)
        if match is None or match[2] not in _SPANS:
            return None
        total += float(match[1]) * _SPANS[match[2]]
        position = match.end()
    return total if position else None


def parse_rate(text: str) -> int | None:
    """`100M` → bits per second, powers of 1000 as in systemd.network(5); None where it is no rate."""
    match = _RATE.fullmatch(text)
    return int(match[1]) * _RATES[match[2]] if match else None


def format_size(size_bytes: int) -> str:
    """Bytes with the largest suffix that divides them: 50331648 → `48M`."""
    for suffix in "TGMK":
        if size_bytes and size_bytes % _SIZES[suffix] == 0:
            return f"{size_bytes // _SIZES[suffix]}{suffix}"
    return str(size_bytes)


def format_span(seconds: float) -> str:
    """Seconds as systemd reads them back, to the millisecond: 2.5 → `2500ms`, 10.0 → `10s`."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
