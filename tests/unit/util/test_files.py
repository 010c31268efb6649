"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.model.errors import HostError, Problem
from agent.util.files import (
    ensure_absent,
    ensure_file,
    ensure_symlink,
    explain_errors,
    explain_full_disk,
    remove_strays,
    write_file,
)


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_content_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    write_file(path, "text", mode=0o640)
    assert path.read_text("utf-8") == "text"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert listing(tmp_path) == ["plan"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    write_file(path, "old")
    with path.open(encoding="utf-8") as reader:
        write_file(path, "new")
        assert reader.read() == "old"
    assert path.read_text("utf-8") == "new"


def test_a_file_is_written_only_where_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "plan"
    assert ensure_file(path, "a") is True
    before = path.stat()
    assert ensure_file(path, "a") is False
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert ensure_file(path, b"b") is True
    assert path.read_bytes() == b"b"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_content_and_no_stray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    path = tmp_path / "plan"
    write_file(path, "old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(HostError, match="No space left while writing") as caught:
        write_file(path, "new")
    assert caught.value.problem is Problem.NO_SPACE
    assert path.read_text("utf-8") == "old"
    assert listing(tmp_path) == ["plan"]


def test_a_disk_that_is_really_full() -> None:
    # /dev/full would be replaced by the rename; a write to it is what it is for.
    with (
        pytest.raises(HostError, match="No space left while trying"),
        explain_full_disk("trying"),
        Path("/dev/full").open("wb", buffering=0) as device,
    ):
        device.write(b"x")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "plan", "x")


def test_what_a_crash_leaves_is_removed_by_the_owner_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan"
    write_file(path, "old")
    with monkeypatch.context() as crash:
        # Nothing runs after a crash, the removal of the temporary file neither.
        crash.setattr(os, "unlink", lambda _path: None)
        crash.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_file(path, "new")
    assert len(listing(tmp_path)) == 2
    (tmp_path / ".hidden").touch()
    assert remove_strays(tmp_path) == 1
    assert listing(tmp_path) == [".hidden", "plan"]
    assert path.read_text("utf-8") == "old"


def test_symbolic_links_are_switched_by_rename(tmp_path: Path) -> None:
    link = tmp_path / "current"
    assert ensure_symlink(link, "a") is True
    assert ensure_symlink(link, "a") is False
    assert ensure_symlink(link, "b") is True
    assert os.readlink(link) == "b"
    assert listing(tmp_path) == ["current"]


def test_absence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tree" / "leaf").mkdir(parents=True)
    (tmp_path / "link").symlink_to("tree")
    assert ensure_absent(tmp_path / "link") is True
    assert (tmp_path / "tree" / "leaf").is_dir()
    assert [ensure_absent(tmp_path / name) for name in ("file", "tree", "file")] == [True, True, False]
    assert listing(tmp_path) == []


def test_errors_of_the_host_say_what_was_being_done(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="exporting: No such file") as caught, explain_errors("exporting"):
        (tmp_path / "none").read_bytes()
    assert caught.value.problem is Problem.NOT_FOUND
