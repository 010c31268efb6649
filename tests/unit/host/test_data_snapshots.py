"""Restoring a snapshot on a real file system, with a crash between any two of its renames."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.host.snapshots import VolumeSnapshots, read_note
from agent.host.states import States
from agent.model.data import DataKind, DataPhase, DataWork, SnapshotNote
from agent.model.errors import HostError, Problem
from agent.model.paths import Paths
from agent.model.swap import ApplianceState

NOTE = SnapshotNote("the administrator", 2, 5)


class Killed(BaseException):
    """The agent is dead."""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    volume = paths.data_volume("dns")
    volume.parent.mkdir(parents=True)
    with volume.open("wb") as file:
        file.write(b"old")
        file.truncate(1 << 20)
    volume.chmod(0o660)
    return paths


@pytest.fixture
def volumes(paths: Paths) -> VolumeSnapshots:
    return VolumeSnapshots(paths)


def begins(paths: Paths) -> bytes:
    return paths.data_volume("dns").read_bytes()[:4].rstrip(b"\0")


def names(paths: Paths) -> list[str]:
    return sorted(path.name for path in paths.snapshots("dns").iterdir())


def write(paths: Paths, content: bytes) -> None:
    with paths.data_volume("dns").open("r+b") as file:
        file.write(content)


def test_a_snapshot_and_what_is_known_of_it(paths: Paths, volumes: VolumeSnapshots) -> None:
    assert volumes.snapshot_files("dns") == []
    volumes.take("dns", "kept", NOTE)
    volumes.take("dns", "swap-1")
    [kept, of_swap] = volumes.snapshot_files("dns")
    assert (kept.name, kept.note, kept.size_bytes) == ("kept", NOTE, 1 << 20)
    assert kept.used_bytes < 1 << 20
    assert (of_swap.name, of_swap.note) == ("swap-1", None)
    volume = volumes.volume("dns")
    assert (volume.path, volume.size_bytes) == (str(paths.data_volume("dns")), 1 << 20)
    assert volumes.volume("web").size_bytes == 0
    assert volumes.delete("dns", "kept")
    assert not volumes.delete("dns", "kept")
    assert names(paths) == ["swap-1.img"]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "maker": "x"}', "[" * 5000, "\0"]
)
def test_notes_that_say_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(content)
    assert read_note(path) is None


def test_a_restore_and_its_undoing(paths: Paths, volumes: VolumeSnapshots) -> None:
    volumes.take("dns", "kept", NOTE)
    write(paths, b"new")
    volumes.bring("dns", "kept")
    assert [file.name for file in volumes.snapshot_files("dns")] == ["kept"]
    volumes.switch("dns", "before", NOTE)
    assert begins(paths) == b"old"
    assert stat.S_IMODE(paths.data_volume("dns").stat().st_mode) == 0o660
    assert names(paths) == ["before.img", "before.json", "kept.img", "kept.json"]
    write(paths, b"bad")
    assert volumes.put_back("dns", "before")
    assert not volumes.put_back("dns", "before")
    assert (begins(paths), names(paths)) == (b"new", ["kept.img", "kept.json"])
    volumes.bring("dns", "kept")
    volumes.switch("dns", "before", NOTE)
    assert begins(paths) == b"old"


def test_what_is_not_there(volumes: VolumeSnapshots) -> None:
    with pytest.raises(HostError) as caught:
        volumes.bring("dns", "kept")
    assert caught.value.problem is Problem.NOT_FOUND
    assert not volumes.put_back("dns", "before")


def test_there_is_a_volume_at_any_instant(
    paths: Paths, volumes: VolumeSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each system call that changes a name, and then undone."""
    volumes.take("dns", "kept", NOTE)
    write(paths, b"new")
    point, lived = 0, False
    while not lived:
        point += 1
        volumes.bring("dns", "kept")
        left = [point]

        def fused(name: str, left: list[int] = left) -> None:
            real = getattr(os, name)

            def call(*arguments: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
                return real(*arguments)

            patch.setattr(os, name, call)

        with monkeypatch.context() as patch:
            for name in ("link", "rename", "replace"):
                fused(name)
            try:
                volumes.switch("dns", "before", NOTE)
                lived = True
            except Killed:
                pass
        assert begins(paths) == (b"old" if lived else b"new")
        volumes.put_back("dns", "before")
        assert begins(paths) == b"new"
        assert [name for name in names(paths) if not name.endswith(".tmp")] == ["kept.img", "kept.json"]
    assert point == 4


def test_a_crash_in_the_middle_of_an_undoing(paths: Paths, volumes: VolumeSnapshots) -> None:
    """Both names are those of one file: rename(2) would do nothing."""
    volumes.take("dns", "kept", NOTE)
    os.link(paths.data_volume("dns"), paths.snapshots("dns") / "before.img")
    assert volumes.put_back("dns", "before")
    assert (begins(paths), names(paths)) == (b"old", ["kept.img", "kept.json"])


def test_work_under_way_is_remembered(paths: Paths) -> None:
    work = DataWork(
        DataKind.RESTORE,
        DataPhase.TRIAL,
        "kept",
        running=True,
        started_at_us=5,
        aside="before",
        old_format=1,
    )
    states = States(paths)
    states.write("dns", ApplianceState(work=work))
    assert states.read("dns").work == work
