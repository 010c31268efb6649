"""Reads the windows of appliance.yaml(5): `Sun 03:00-05:00`, `Mon..Fri,Sun 22:00-01:00`, `02:00-04:00`."""

from __future__ import annotations

import re

from agent.model.update import DAY_MIN, DAYS, Window

_WINDOW = re.compile(
    r"(?:([A-Za-z.,]{1,100}) {1,9})?([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})",
)
_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = {name: number for number, long in enumerate(_NAMES) for name in (long, long[:3])}


def parse_window(text: str) -> Window | None:
    """A window, or None where it is none. An end that is not after the start is one of the next day."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        return None
    days = _parse_days(match[1]) if match[1] else tuple(range(len(DAYS)))
    start, end = _parse_time(match[2], match[3]), _parse_time(match[4], match[5])
    if not days or start is None or end is None or start in {end, DAY_MIN}:
        return None
    return Window(days, start, (end - start) % DAY_MIN or DAY_MIN)


def check_window(text: str) -> str:
    """A window; what is wrong with it, or ''."""
    return "" if parse_window(text) else f"“{text}” is not a window such as Sun 03:00-05:00"


def _parse_time(hour: str, minute: str) -> int | None:
    """Minutes after midnight; 24:00 is the end of the day."""
    time_min = int(hour) * 60 + int(minute)
    return time_min if int(minute) < 60 and time_min <= DAY_MIN else None


def _parse_days(text: str) -> tuple[int, ...]:
    """Days, ascending; empty where one of them is none. `Fri..Mon` goes over the end of the week."""
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dots, last = part.partition("..")
        if first not in _NUMBERS or (dots and last not in _NUMBERS):
            return ()
        begin = _NUMBERS[first]
        count = (_NUMBERS[last or first] - begin) % len(DAYS) + 1
        found.update((begin + offset) % len(DAYS) for offset in range(count))
    return tuple(sorted(found))
