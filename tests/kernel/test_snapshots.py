"""Snapshots on file systems of their own: one that shares blocks, and one that is too small."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.snapshots import VolumeSnapshots, can_share, free_bytes
from agent.model.errors import HostError, Problem
from agent.model.paths import Paths
from tests.kernel.conftest import mount

MIB = 1 << 20


def volume_in(root: Path, size_bytes: int) -> tuple[VolumeSnapshots, Path]:
    paths = Paths(root)
    volume = paths.data_volume("dns")
    volume.parent.mkdir(parents=True)
    volume.write_bytes(os.urandom(size_bytes))
    return VolumeSnapshots(paths), volume


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """A btrfs in a file."""
    image, place = tmp_path / "btrfs", tmp_path / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    subprocess.run(["mkfs.btrfs", "--quiet", image], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, place], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no btrfs here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_copy_that_shares_its_blocks_costs_nothing(sharing: Path) -> None:
    volumes, volume = volume_in(sharing, 100 * MIB)
    os.sync()
    assert volumes.can_share("dns")
    free = free_bytes(sharing)
    volumes.take("dns", "swap-1")
    os.sync()
    assert free - free_bytes(sharing) < MIB
    copy = volume.parent / "snapshots/swap-1.img"
    assert copy.read_bytes() == volume.read_bytes()
    with volume.open("r+b") as file:
        file.write(b"changed")
    assert not copy.read_bytes().startswith(b"changed")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file system of 8 MiB."""
    mount("tmpfs", str(tmp_path), "tmpfs", options="size=8m")
    return tmp_path


def test_a_disk_that_is_too_small_keeps_its_space(small: Path) -> None:
    volumes, volume = volume_in(small, 5 * MIB)
    assert not can_share(volume)
    free = free_bytes(small)
    with pytest.raises(HostError, match="5M needed, ") as caught:
        volumes.take("dns", "swap-1")
    assert caught.value.problem is Problem.NO_SPACE
    assert free - free_bytes(small) < MIB
    assert list((volume.parent / "snapshots").iterdir()) == []


def test_one_that_fills_up_meanwhile_is_as_before(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.host.snapshots.free_bytes", lambda _directory: 1 << 40)
    volumes, volume = volume_in(small, 5 * MIB)
    before = volume.read_bytes()
    with pytest.raises(HostError, match="No space left while taking a snapshot of") as caught:
        volumes.take("dns", "swap-1")
    assert caught.value.problem is Problem.NO_SPACE
    assert (volume.read_bytes(), list((volume.parent / "snapshots").iterdir())) == (before, [])
