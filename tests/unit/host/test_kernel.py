"""Whether a kernel binary can run guests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.host.kernel import REQUIRED, judge, why_unfit

REMEDY = "use the kernel of the package appliance-kernel"
GOOD = dict.fromkeys(REQUIRED, "y")


def binary(
    version: str = "7.3.4", options: dict[str, str] | None = None, *, magic: bytes = b"\x7fELF"
) -> bytes:
    """What is looked for, as a kernel binary carries it: strings between NULs."""
    lines = b"".join(
        f"CONFIG_{name}={value}\n".encode() + b"\0"
        for name, value in (GOOD if options is None else options).items()
    )
    return magic + b"\x00" * 60 + f"Linux version {version} (root@build) #1\0".encode() + lines


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ("7.3.4", GOOD, ""),
        ("6.16.0-rc1+debug", GOOD, ""),
        ("10.0", GOOD, ""),
        ("6.15.9", GOOD, "is version 6.15.9; 6.16 or later is needed"),
        ("5.20", GOOD, "is version 5.20; 6.16 or later is needed"),
        ("seven", GOOD, "has no version that can be read (“seven”)"),
        ("x" * 99, GOOD, f"has no version that can be read (“{'x' * 40}”)"),
        (
            "7.3",
            {**GOOD, "EXT4_FS": "n"},
            f"is not supported: it lacks ext4; {REMEDY}",
        ),
        (
            "7.3",
            {**GOOD, "SQUASHFS": "m", "INET": ""},
            f"is not supported: it keeps as modules, or lacks, squashfs, IPv4; {REMEDY}",
        ),
    ],
)
def test_judgement(version: str, options: dict[str, str], expected: str) -> None:
    assert judge(version, options) == expected


def test_everything_may_be_missing() -> None:
    assert all(what in judge("7.3", {}) for what in REQUIRED.values())


def test_a_kernel_that_is_fit(tmp_path: Path) -> None:
    path = tmp_path / "linux"
    path.write_bytes(binary())
    assert why_unfit(str(path)) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\nreboot\n",
        binary(magic=b"MZ.."),
        b"\x7fELF\0Linux version \xff\xfe\0",
        b"\x7fELF\0Linux version 7\xff.3\0",
        b"\x7fELF\0Linux version 7" + b"A" * 100_000,
        b"\x7fELF\0Linux version 7\x1b[2J\nx \0",
    ],
)
def test_what_is_no_kernel_is_said_to_be_none_on_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "linux"
    path.write_bytes(content)
    reason = why_unfit(str(path))
    assert reason.startswith(f"kernel {path} ")
    assert reason.isprintable()
    assert len(reason) < 300 + len(str(path))


def test_a_program_is_never_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "linux", tmp_path / "proof"
    path.write_text(f"#!/bin/sh\ntouch {proof}\n")
    path.chmod(0o755)
    assert "is not a User-Mode Linux kernel" in why_unfit(str(path))
    assert not proof.exists()


def test_what_is_no_file(tmp_path: Path) -> None:
    assert why_unfit(str(tmp_path / "none")) == f"kernel {tmp_path}/none: No such file or directory"
    assert why_unfit(str(tmp_path)) == f"kernel {tmp_path} is not a regular file"
    os.mkfifo(tmp_path / "fifo")
    assert why_unfit(str(tmp_path / "fifo")) == f"kernel {tmp_path}/fifo is not a regular file"
    assert "is not a regular file" in why_unfit("/dev/zero")


def test_a_kernel_is_looked_at_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "linux"
    path.write_bytes(binary("6.1"))
    assert "is version 6.1" in why_unfit(str(path))
    path.write_bytes(binary("7.3.4"))
    os.utime(path, ns=(0, 1))
    assert why_unfit(str(path)) == ""
