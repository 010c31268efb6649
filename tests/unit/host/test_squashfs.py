"""Images from anybody: what is no image is noticed before anything is run on it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.squashfs import Superblock, check_image, read_file
from agent.model.errors import HostError, ImageError
from agent.model.image import MANIFEST_PATH
from tests.fakes.images import make_image, manifest_text


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("images") / "web.squashfs")


def check(path: Path) -> Superblock:
    with path.open("rb") as file:
        return check_image(file.fileno(), str(path))


def changed(image: Path, path: Path, *, offset: int, content: bytes) -> Path:
    data = bytearray(image.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    return path


def test_a_sound_image(image: Path) -> None:
    superblock = check(image)
    assert superblock.compression == "lz4"
    assert 0 < superblock.size_bytes <= image.stat().st_size


def test_a_truncated_image(image: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.squashfs"
    short.write_bytes(image.read_bytes()[: check(image).size_bytes - 1])
    with pytest.raises(ImageError, match=r"short\.squashfs is truncated: \d+ bytes expected, found \d+"):
        check(short)


@pytest.mark.parametrize(
    ("offset", "content", "reason"),
    [
        (0, b"sqsh", "is not a squashfs image"),
        (20, struct.pack("<H", 2), "cannot read its compression"),
        (28, struct.pack("<H", 3), "is not supported, only 4.0"),
        (12, struct.pack("<I", 3), "the superblock is damaged"),
        (22, struct.pack("<H", 9), "the superblock is damaged"),
    ],
)
def test_an_unfit_superblock(image: Path, tmp_path: Path, offset: int, content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        check(changed(image, tmp_path / "bad", offset=offset, content=content))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_refused(content: bytes) -> None:
    with pytest.raises(ImageError):
        Superblock.parse(content, "x")


def test_a_file_of_an_image_that_only_its_owner_can_reach(image: Path) -> None:
    image.parent.chmod(0o700)
    assert read_file(image, MANIFEST_PATH, limit_bytes=4096) == manifest_text().encode()


def test_a_file_that_is_not_there(image: Path) -> None:
    with pytest.raises(HostError):
        read_file(image, "etc/passwd", limit_bytes=4096)


def test_a_file_larger_than_allowed(tmp_path: Path) -> None:
    # Compresses to next to nothing, and would not stop by itself for a while.
    image = make_image(tmp_path / "bomb.squashfs", manifest="#" * (64 << 20))
    with pytest.raises(HostError, match="wrote more than 4096 bytes"):
        read_file(image, MANIFEST_PATH, limit_bytes=4096)


def test_damaged_tables_are_refused_and_nothing_worse(image: Path, tmp_path: Path) -> None:
    size = check(image).size_bytes
    for offset in range(96, size, max(size // 40, 1)):
        damaged = changed(image, tmp_path / "damaged", offset=offset, content=b"\xff" * 8)
        try:
            content = read_file(damaged, MANIFEST_PATH, limit_bytes=4096)
        except HostError:
            continue
        assert len(content) <= 4096
