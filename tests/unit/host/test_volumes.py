"""Data volumes, made by the real mke2fs and resize2fs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.host import volumes
from agent.host.volumes import create_volume, grow_volume, is_half_grown, volume_size
from agent.model.errors import HostError, Problem


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    try:
        os.chown(tmp_path, 0, os.getgid())
    except PermissionError:
        pytest.skip("files cannot be given to root")
    return tmp_path


def listing(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def blocks(path: Path) -> int:
    """The size the file system itself has, in bytes."""
    text = subprocess.run(["/sbin/dumpe2fs", "-h", path], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["Block count"]) * int(fields["Block size"])


def test_a_volume_is_made_and_grown(directory: Path) -> None:
    path = directory / "data.img"
    assert volume_size(path) == 0
    create_volume(path, size_bytes=8 << 20, group=os.getgid())
    assert (volume_size(path), blocks(path)) == (8 << 20, 8 << 20)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o660, 0)
    assert path.stat().st_blocks * 512 < 4 << 20
    grow_volume(path, size_bytes=16 << 20)
    assert (volume_size(path), blocks(path)) == (16 << 20, 16 << 20)
    assert listing(directory) == ["data.img"]


def test_growth_that_was_interrupted_is_finished_by_the_next(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory / "data.img"
    create_volume(path, size_bytes=8 << 20, group=os.getgid())
    assert not is_half_grown(path)

    def killed(*_argv: object, **_options: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(volumes, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            grow_volume(path, size_bytes=16 << 20)
    assert (volume_size(path), blocks(path)) == (16 << 20, 8 << 20)
    assert is_half_grown(path)
    grow_volume(path, size_bytes=16 << 20)
    assert blocks(path) == 16 << 20
    assert listing(directory) == ["data.img"]


def test_a_volume_that_a_guest_uses_is_not_grown(directory: Path) -> None:
    path = directory / "data.img"
    create_volume(path, size_bytes=8 << 20, group=os.getgid())
    # The lock is a process's, so somebody else has to hold it, as UML does.
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, 2); print(); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:
        assert guest.stdout
        guest.stdout.readline()
        with pytest.raises(HostError) as caught:
            grow_volume(path, size_bytes=16 << 20)
        guest.communicate()
    assert caught.value.problem is Problem.IN_USE
    assert volume_size(path) == 8 << 20


def test_a_volume_is_never_made_smaller(directory: Path) -> None:
    path = directory / "data.img"
    create_volume(path, size_bytes=8 << 20, group=os.getgid())
    with pytest.raises(HostError, match="cannot be made smaller") as caught:
        grow_volume(path, size_bytes=4 << 20)
    assert caught.value.problem is Problem.NOT_SUPPORTED
    assert volume_size(path) == 8 << 20


def test_a_failure_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "_FORMAT", ["false"])
    with pytest.raises(HostError, match="false failed"):
        create_volume(directory / "data.img", size_bytes=1 << 20, group=os.getgid())
    assert listing(directory) == []
