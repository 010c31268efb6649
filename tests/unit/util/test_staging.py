"""Staging directories go away, whoever made them and however that one ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from agent.util.staging import staging_directory


def die_in(parent: Path) -> None:
    with staging_directory(parent, "x") as directory:
        (directory / "file").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_gone_after_the_block(tmp_path: Path) -> None:
    with staging_directory(tmp_path, "x") as directory:
        (directory / "inner").mkdir()
        assert directory.parent == tmp_path
        assert directory.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == []


def test_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), staging_directory(tmp_path, "x"):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_gone_with_the_next(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_in, args=(tmp_path,))
    process.start()
    process.join()
    process.close()
    assert len(list(tmp_path.iterdir())) == 1
    with staging_directory(tmp_path, "y") as directory:
        assert list(tmp_path.iterdir()) == [directory]


def test_nobody_takes_away_what_is_in_use(tmp_path: Path) -> None:
    with staging_directory(tmp_path, "x") as one, staging_directory(tmp_path, "x") as other:
        assert sorted(tmp_path.iterdir()) == sorted([one, other])
