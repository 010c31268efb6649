"""The order of versions, against what dpkg says."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model.names import IMAGE_VERSION
from agent.model.versions import version_key

ASCENDING = (
    "0",
    "1~~",
    "1~~a",
    "1~",
    "1~rc1",
    "1",
    "1a",
    "1+b",
    "1.0",
    "1.0-0",
    "1.0-1",
    "1.0-1+b1",
    "1.0.1",
    "1.2",
    "1.9",
    "1.10",
    "2-1",
    "10",
)

versions = st.from_regex(IMAGE_VERSION, fullmatch=True)


@pytest.mark.parametrize(("older", "newer"), list(pairwise(ASCENDING)))
def test_order(older: str, newer: str) -> None:
    # An absent revision is revision 0 (deb-version(7)).
    equal = newer == f"{older}-0"
    assert (version_key(older) == version_key(newer)) if equal else (version_key(older) < version_key(newer))


@given(versions, versions, versions)
def test_any_versions_can_be_compared(a: str, b: str, c: str) -> None:
    first, second, third = sorted((version_key(a), version_key(b), version_key(c)))
    assert first <= second <= third


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg to compare with")
@settings(max_examples=40)
@given(
    st.from_regex(r"[0-9][0-9a-z.+~]{0,8}(-[0-9a-z.+~]{1,4})?", fullmatch=True),
    st.from_regex(r"[0-9][0-9a-z.+~]{0,8}(-[0-9a-z.+~]{1,4})?", fullmatch=True),
)
def test_order_is_dpkg_s(a: str, b: str) -> None:
    older = subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False).returncode == 0
    assert (version_key(a) < version_key(b)) is older
