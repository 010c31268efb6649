"""One key of a file is edited, the rest stays as it is."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.edit import with_key


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("image: x\ndata: 8M\nkernel: y\n", "image: x\ndata: 2G\nkernel: y\n"),
        ("data: 8M  # enough\n", "data: 2G  # enough\n"),
        ("data:   8M", "data:   2G"),
        ('data: "8M"\n', "data: 2G\n"),
        ("image: x\n", "image: x\ndata: 2G\n"),
        ("image: x", "image: x\ndata: 2G\n"),
        ("# data: 8M\nimage: x\n", "# data: 8M\nimage: x\ndata: 2G\n"),
        ("a:\n  data: 8M\n", "a:\n  data: 8M\ndata: 2G\n"),
        ("", "data: 2G\n"),
    ],
)
def test_edits(before: str, after: str) -> None:
    assert with_key(before, "data", "2G") == after


@given(st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), st.integers(0, 99)))
def test_plain_mappings_keep_everything_else(mapping: dict[str, int]) -> None:
    text = yaml.safe_dump(mapping, default_flow_style=False) if mapping else ""
    assert yaml.safe_load(with_key(text, "data", "5")) == {**mapping, "data": 5}
