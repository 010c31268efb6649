"""What an archive may say of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.errors import HostError, Problem
from agent.model.image import Digest
from agent.plan.transfer import ArchiveManifest, Entry, is_safe_path, read_manifest, render_manifest

SUM = "0" * 64
GOOD = ArchiveManifest(
    appliance="dns",
    image=Digest("1" * 64),
    reference="dns-nsd:4.6",
    data_format=1,
    exported_at_us=5,
    members=(
        Entry("appliance.yaml", 20, SUM),
        Entry("config/zones/example.zone", 20, SUM),
        Entry("data.img", 1 << 30, SUM),
        Entry("image.squashfs", 20, "1" * 64),
    ),
)


def refused(content: bytes) -> str:
    with pytest.raises(HostError) as caught:
        read_manifest(content)
    assert caught.value.problem is Problem.INVALID_ARCHIVE
    return str(caught.value)


def with_members(*members: Entry) -> bytes:
    return render_manifest(replace(GOOD, members=members))


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(render_manifest(GOOD)), **values}).encode()


def test_round_trip() -> None:
    assert read_manifest(render_manifest(GOOD)) == GOOD


@pytest.mark.parametrize(
    "name",
    [
        "../etc/passwd",
        "/etc/passwd",
        "config/../x",
        "config/./x",
        "config//x",
        "config/",
        "config/x/",
        "config/a\nb",
        "config/a\0b",
        f"config/{'x' * 201}",
        "config/" + "x/" * 600 + "x",
        "data.img/x",
        "manifest.json",
        "other",
        "",
    ],
)
def test_names_that_do_not_belong_there(name: str) -> None:
    members = (Entry("appliance.yaml", 20, SUM), Entry(name, 1, SUM))
    assert "The archive cannot be used" in refused(with_members(*members))


YAML = GOOD.members[0]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ((), "has no appliance.yaml"),
        ((YAML, YAML), "two members of one name"),
        ((replace(YAML, size_bytes=2 << 20),), "too large"),
        ((YAML, Entry("config/a", 17 << 20, SUM)), "too large"),
        ((YAML, Entry("config/a", 9 << 20, SUM), Entry("config/b", 9 << 20, SUM)), "too large"),
        ((YAML, Entry("data.img", 1 << 50, SUM)), "too large"),
        ((YAML, Entry("image.squashfs", 5, SUM)), "not the one that its manifest names"),
        ((YAML, Entry("config/a", 5, "x")), "no digest"),
        ((YAML, Entry("config/a", 5, SUM), Entry("config/a/b", 5, SUM)), "below a file"),
        ((YAML, *(Entry(f"config/{n}", 0, SUM) for n in range(10_001))), "more than 10000"),
    ],
)
def test_members_that_cannot_be(members: tuple[Entry, ...], reason: str) -> None:
    assert reason in refused(with_members(*members))


@pytest.mark.parametrize(
    "values",
    [
        {"version": 2},
        {"version": "1"},
        {"appliance": "../x"},
        {"appliance": 5},
        {"image": "sha256:xyz"},
        {"image": None},
        {"data_format": -1},
        {"data_format": True},
        {"data_format": 1 << 40},
        {"data_format": 1.5},
        {"members": None},
        {"members": [{}]},
        {"members": [5]},
        {"reference": "a\x1bb"},
        {"reference": "x" * 5000},
    ],
)
def test_values_that_cannot_be(values: dict[str, Any]) -> None:
    refused(changed(**values))


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"{}", b"\xff", b"[" * 100_000, b'{"version": 1}'])
def test_no_manifest(content: bytes) -> None:
    refused(content)


@given(st.binary(max_size=300))
def test_anything_is_refused(content: bytes) -> None:
    refused(content)


@given(st.text(max_size=40))
def test_a_safe_path_stays_below(path: str) -> None:
    parts = path.split("/")
    assert not (is_safe_path(path) and ({"", ".", ".."} & set(parts) or "\0" in path))
