"""What the dynamic loader will ask for."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.image.elf import Elf, parse_elf
from agent.model.errors import ImageError
from tests.unit.image.packages import elf

LOADER = "/lib64/ld-linux-x86-64.so.2"


def test_a_program() -> None:
    content = elf("libc.so.6", "libm.so.6", interpreter=LOADER, runpath="$ORIGIN/../lib:/opt/lib")
    assert parse_elf(content, "x") == Elf(LOADER, ("libc.so.6", "libm.so.6"), ("$ORIGIN/../lib", "/opt/lib"))


def test_a_library_and_a_static_program() -> None:
    assert parse_elf(elf("libc.so.6"), "x") == Elf("", ("libc.so.6",), ())
    assert parse_elf(elf(), "x") == Elf("", (), ())


def test_like_readelf() -> None:
    path = Path(sys.executable).resolve()
    parsed = parse_elf(path.read_bytes(), str(path))
    assert parsed
    said = subprocess.run(["readelf", "-dW", path], check=True, capture_output=True, text=True).stdout
    assert [line.rpartition("[")[2].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line] == list(
        parsed.needed
    )
    assert parsed.interpreter == LOADER


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x01\x01\x01" + bytes(100)])
def test_what_is_no_elf_file_of_this_kind(content: bytes) -> None:
    assert parse_elf(content, "x") is None


def test_another_architecture() -> None:
    content = bytearray(elf("libc.so.6"))
    content[18] = 183  # EM_AARCH64
    assert parse_elf(bytes(content), "x") is None


def parse_or_refuse(content: bytes) -> None:
    with contextlib.suppress(ImageError):
        parse_elf(content, "x")


@given(st.integers(0, 300))
def test_a_truncated_file(size: int) -> None:
    parse_or_refuse(elf("libc.so.6", interpreter=LOADER)[:size])


@given(st.integers(7, 250), st.binary(min_size=1, max_size=8))
def test_a_damaged_file(offset: int, noise: bytes) -> None:
    content = bytearray(elf("libc.so.6", interpreter=LOADER))
    content[offset : offset + len(noise)] = noise
    parse_or_refuse(bytes(content))


def test_the_refusal_names_the_file() -> None:
    with pytest.raises(ImageError, match="/usr/sbin/nsd: damaged ELF file"):
        parse_elf(elf("libc.so.6")[:70], "/usr/sbin/nsd")
