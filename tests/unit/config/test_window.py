"""Windows as administrators write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.window import check_window, parse_window
from agent.model.update import DAY_MIN, DAYS, Window

EVERY = tuple(range(7))


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("Sun 03:00-05:00", Window((6,), 180, 120)),
        ("02:00-04:00", Window(EVERY, 120, 120)),
        ("2:00-4:30", Window(EVERY, 120, 150)),
        ("Mon..Fri 22:00-23:30", Window((0, 1, 2, 3, 4), 1320, 90)),
        ("mon,WED,sunday 22:00-23:30", Window((0, 2, 6), 1320, 90)),
        ("Fri..Mon 22:00-01:00", Window((0, 4, 5, 6), 1320, 180)),
        ("Sat..Sat,Sun 00:00-24:00", Window((5, 6), 0, 1440)),
        ("22:00-24:00", Window(EVERY, 1320, 120)),
        ("22:00-00:00", Window(EVERY, 1320, 120)),
        ("00:00-00:01", Window(EVERY, 0, 1)),
    ],
)
def test_windows(text: str, window: Window) -> None:
    assert parse_window(text) == window
    assert check_window(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun",
        "always",
        "03:00",
        "03:00-",
        "03:00-03:00",
        "24:00-03:00",
        "24:01-03:00",
        "03:60-04:00",
        "3-5",
        "03:00 - 05:00",
        "Sun03:00-05:00",
        "Sun, Mon 03:00-05:00",
        "Sun,, 03:00-05:00",
        "Sun.. 03:00-05:00",
        "..Sun 03:00-05:00",
        "Sun...Mon 03:00-05:00",
        "Sun..Mon..Tue 03:00-05:00",
        "So 03:00-05:00",
        "٠٣:00-05:00",
        " 03:00-05:00",
        "03:00-05:00\n",
        "Sun 03:00-05:00 Europe/Berlin",
        "a" * 100_000 + " 03:00-05:00",
    ],
)
def test_no_windows(text: str) -> None:
    assert parse_window(text) is None
    assert "is not a window such as Sun 03:00-05:00" in check_window(text)


@given(st.text(alphabet="MonTueSu.,:-0123456789 ", max_size=40))
def test_whatever_it_is_there_is_an_answer(text: str) -> None:
    window = parse_window(text)
    assert (window is None) == bool(check_window(text))
    if window:
        assert window.days
        assert set(window.days) <= set(EVERY)
        assert 0 <= window.start_min < DAY_MIN
        assert 0 < window.length_min <= DAY_MIN


@given(st.sets(st.sampled_from(EVERY), min_size=1), st.integers(0, DAY_MIN - 1), st.integers(1, DAY_MIN - 1))
def test_what_is_written_out_is_read_back(days: set[int], start: int, length: int) -> None:
    end = (start + length) % DAY_MIN
    times = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    names = ",".join(DAYS[day] for day in sorted(days))
    assert parse_window(f"{names} {times}") == Window(tuple(sorted(days)), start, length)
