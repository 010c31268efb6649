"""Snapshots of data volumes: complete, with every property, and undone wherever they are interrupted."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.host import snapshots
from agent.host.snapshots import (
    VolumeSnapshots,
    can_share,
    put_aside,
    restore_snapshot,
    take_snapshot,
    used_bytes,
)
from agent.model.errors import HostError, Problem
from agent.model.paths import Paths

MIB = 1 << 20


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


@pytest.fixture
def volumes(paths: Paths) -> VolumeSnapshots:
    return VolumeSnapshots(paths)


@pytest.fixture
def volume(paths: Paths) -> Path:
    """A sparse volume of `dns`: 64 MiB, with something at its beginning and in its middle."""
    path = paths.data_volume("dns")
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(b"first")
        file.seek(32 * MIB)
        file.write(os.urandom(100_000))
        file.truncate(64 * MIB)
    path.chmod(0o660)
    return path


def listing(paths: Paths) -> list[str]:
    directory = paths.snapshots("dns")
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


# --- taking


def test_a_copy_has_all_that_the_volume_has(volume: Path, paths: Paths, volumes: VolumeSnapshots) -> None:
    volumes.take("dns", "swap-1")
    copy = paths.snapshots("dns") / "swap-1.img"
    assert copy.read_bytes() == volume.read_bytes()
    before, after = volume.stat(), copy.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (
        before.st_uid,
        before.st_gid,
        0o660,
    )
    assert (after.st_ino == before.st_ino, listing(paths)) == (False, ["swap-1.img"])
    assert stat.S_IMODE(paths.snapshots("dns").stat().st_mode) == 0o700
    assert (volumes.has("dns", "swap-1"), volumes.has("dns", "swap-2")) == (True, False)


def lock_of_another(volume: Path) -> bool:
    """Whether another process, such as a guest's kernel, could lock the volume now."""
    script = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", script, volume], capture_output=True, check=False)
    return done.returncode == 0


def test_no_guest_can_start_until_the_copy_is_there(
    volume: Path, volumes: VolumeSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    could = []

    def rename(source: Path, target: Path) -> None:
        could.append(lock_of_another(volume))
        source.replace(target)

    monkeypatch.setattr(os, "rename", rename)
    volumes.take("dns", "swap-1")
    assert (could, lock_of_another(volume)) == ([False], True)


def test_what_a_guest_uses_is_not_copied(volume: Path, volumes: VolumeSnapshots) -> None:
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print(flush=True); input()"
    )
    guest = subprocess.Popen(
        [sys.executable, "-c", script, volume], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with guest:
        assert guest.stdout
        guest.stdout.readline()
        with pytest.raises(HostError, match="in use by a guest") as caught:
            volumes.take("dns", "swap-1")
        guest.communicate(b"\n")
    assert caught.value.problem is Problem.IN_USE


def test_what_is_empty_takes_no_space(volume: Path, paths: Paths, volumes: VolumeSnapshots) -> None:
    volumes.take("dns", "swap-1")
    assert used_bytes(paths.snapshots("dns") / "swap-1.img") <= used_bytes(volume) + 64 * 1024 < MIB


@pytest.mark.parametrize("size_bytes", [0, 1, 3 * MIB])
def test_volumes_that_are_only_a_hole_or_only_data(
    paths: Paths, volumes: VolumeSnapshots, size_bytes: int
) -> None:
    volume = paths.data_volume("dns")
    volume.parent.mkdir(parents=True)
    for content in (b"", os.urandom(size_bytes)):
        volume.write_bytes(content)
        os.truncate(volume, size_bytes)
        volumes.take("dns", "swap-1")
        assert (paths.snapshots("dns") / "swap-1.img").read_bytes() == volume.read_bytes()


@pytest.mark.usefixtures("volume")
def test_an_older_one_of_that_name_and_strays_are_replaced(paths: Paths, volumes: VolumeSnapshots) -> None:
    directory = paths.snapshots("dns")
    directory.mkdir()
    (directory / "swap-1.img").write_bytes(b"older")
    (directory / ".swap-1.img.7.tmp").write_bytes(b"half")
    volumes.take("dns", "swap-1")
    assert listing(paths) == ["swap-1.img"]
    assert (directory / "swap-1.img").stat().st_size == 64 * MIB


@pytest.mark.usefixtures("volume")
def test_a_disk_with_too_little_space_is_known_before_it_is_full(
    paths: Paths, volumes: VolumeSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    if can_share(paths.data_volume("dns")):
        pytest.skip("copies cost nothing here")
    monkeypatch.setattr(snapshots, "free_bytes", lambda _directory: 4096)
    with pytest.raises(HostError, match=r"No space left for a snapshot of .*data\.img: 0M needed") as caught:
        volumes.take("dns", "swap-1")
    assert caught.value.problem is Problem.NO_SPACE
    assert "snapshot: never" in caught.value.remedy
    assert listing(paths) == []


@pytest.mark.usefixtures("volume")
def test_a_copy_that_fails_leaves_nothing(
    paths: Paths, volumes: VolumeSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(HostError, match="No space left while taking a snapshot") as caught:
        volumes.take("dns", "swap-1")
    assert (caught.value.problem, listing(paths)) == (Problem.NO_SPACE, [])


def test_whether_copies_cost_nothing_is_tried_without_a_trace(
    volume: Path, volumes: VolumeSnapshots
) -> None:
    assert volumes.can_share("dns") is can_share(volume)
    assert [path.name for path in volume.parent.iterdir()] == ["data.img"]
    assert volumes.can_share("none") is False


# --- going back


def contents(paths: Paths) -> dict[str, bytes]:
    volume = paths.data_volume("dns")
    found = {volume.name: volume.read_bytes()} if volume.exists() else {}
    return found | {name: (paths.snapshots("dns") / name).read_bytes() for name in listing(paths)}


@pytest.fixture
def two(paths: Paths) -> None:
    """A volume `new`, and a snapshot `old` of it."""
    volume = paths.data_volume("dns")
    volume.parent.mkdir(parents=True)
    volume.write_bytes(b"old")
    take_snapshot(volume, paths.snapshots("dns") / "swap-1.img")
    volume.write_bytes(b"new")


@pytest.mark.usefixtures("two")
def test_a_restored_snapshot_is_used_up(paths: Paths, volumes: VolumeSnapshots) -> None:
    assert volumes.restore("dns", "swap-1") is True
    assert contents(paths) == {"data.img": b"old"}
    assert volumes.restore("dns", "swap-1") is False
    assert contents(paths) == {"data.img": b"old"}


@pytest.mark.usefixtures("two")
def test_an_exchange_keeps_both(paths: Paths, volumes: VolumeSnapshots) -> None:
    volumes.exchange("dns", "swap-2", "swap-1")
    assert contents(paths) == {"data.img": b"old", "swap-2.img": b"new"}
    assert volumes.restore("dns", "swap-2")
    assert contents(paths) == {"data.img": b"new"}


@pytest.mark.usefixtures("two")
def test_an_exchange_for_what_is_not_there_touches_nothing(paths: Paths, volumes: VolumeSnapshots) -> None:
    with pytest.raises(HostError, match="There is no snapshot “swap-7”") as caught:
        volumes.exchange("dns", "swap-2", "swap-7")
    assert caught.value.problem is Problem.NOT_FOUND
    assert contents(paths) == {"data.img": b"new", "swap-1.img": b"old"}


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_interrupted_exchange_can_be_undone(paths: Paths, volumes: VolumeSnapshots, steps: int) -> None:
    volume, directory = paths.data_volume("dns"), paths.snapshots("dns")
    if steps > 0:
        put_aside(volume, directory / "swap-2.img")
    if steps > 1:
        restore_snapshot(directory / "swap-1.img", volume)
    assert volumes.restore("dns", "swap-2") == (steps > 0)
    assert volume.read_bytes() == b"new"


@pytest.mark.usefixtures("two")
def test_an_interrupted_exchange_can_be_finished(paths: Paths, volumes: VolumeSnapshots) -> None:
    put_aside(paths.data_volume("dns"), paths.snapshots("dns") / "swap-2.img")
    volumes.exchange("dns", "swap-2", "swap-1")
    assert contents(paths) == {"data.img": b"old", "swap-2.img": b"new"}


# --- removing


@pytest.mark.usefixtures("two")
def test_only_what_swaps_made_and_nobody_needs_is_removed(paths: Paths, volumes: VolumeSnapshots) -> None:
    directory = paths.snapshots("dns")
    for name in ("swap-2.img", "swap-10.img", "before-the-move.img", "notes", ".swap-3.img.7.tmp"):
        (directory / name).touch()
    volumes.remove("dns", but={"swap-1", "swap-10", ""})
    assert listing(paths) == ["before-the-move.img", "notes", "swap-1.img", "swap-10.img"]
    assert paths.data_volume("dns").read_bytes() == b"new"


def test_where_there_are_none_nothing_is_removed(paths: Paths, volumes: VolumeSnapshots) -> None:
    volumes.remove("dns", but=())
    assert not paths.snapshots("dns").exists()
