"""Sizes and time spans as systemd writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.units import format_size, format_span, parse_size, parse_span

SUFFIXES = ("", "B", "K", "M", "G", "T")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("1", 1), ("1B", 1), ("1K", 1024), ("48M", 48 << 20), ("3G", 3 << 30), ("2T", 2 << 40)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "1 M", "1.5G", "-1", "+1", "1KB", "1k", "1_0", "٣", "1\n", "1" * 13]
)
def test_no_sizes(text: str) -> None:
    assert parse_size(text) is None


@given(st.integers(0, 10**12 - 1), st.sampled_from(SUFFIXES))
def test_a_size_that_was_read_is_written_so_that_it_is_read_back(number: int, suffix: str) -> None:
    size_bytes = parse_size(f"{number}{suffix}")
    assert size_bytes is not None
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("2s", 2.0),
        ("500ms", 0.5),
        ("1min 30s", 90.0),
        ("1min30s", 90.0),
        ("1h", 3600.0),
        ("2 hours", 7200.0),
        ("1.5s", 1.5),
        ("1d", 86400.0),
        ("250us ", 0.00025),
        ("0", 0.0),
    ],
)
def test_spans(text: str, seconds: float) -> None:
    assert parse_span(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "1 fortnight", "-1s", "1,5s", "1s;", "1.s.", "1e3", "infinity", "٣s"]
)
def test_no_spans(text: str) -> None:
    assert parse_span(text) is None


@given(st.integers(0, 10**9))
def test_a_span_is_written_so_that_it_is_read_back_to_the_millisecond(milliseconds: int) -> None:
    seconds = parse_span(format_span(milliseconds / 1000))
    assert seconds is not None
    assert round(seconds * 1000) == milliseconds


@given(st.text(alphabet="0123456789. \tsmhdinec-µ", max_size=12))
def test_any_text_is_a_span_or_none(text: str) -> None:
    seconds = parse_span(text)
    assert seconds is None or seconds >= 0


@given(
    st.lists(
        st.tuples(st.integers(0, 999), st.sampled_from(["ms", "s", "min", "h"])), min_size=1, max_size=4
    )
)
def test_parts_of_a_span_add_up(parts: list[tuple[int, str]]) -> None:
    one_by_one = [parse_span(f"{number}{unit}") for number, unit in parts]
    assert parse_span(" ".join(f"{number}{unit}" for number, unit in parts)) == pytest.approx(
        sum(filter(None, one_by_one))
    )
