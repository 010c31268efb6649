"""A tree packed and unpacked again is the same."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from agent.image.pack import pack
from agent.image.tree import Kind, Node, Tree
from agent.model.errors import ImageError

NAMES = ("plain", "a b", 'q"x', "b\\c", '"lead', "trail ", "ünï", "-dash")


def sample() -> Tree:
    tree = Tree(1_000_000)
    for name in NAMES:
        tree.add(f"/names/{name}", Node(Kind.FILE, mode=0o644, content=name.encode()))
    tree.add("/empty", Node(Kind.FILE, mode=0o4755, uid=70000, gid=1, mtime=999))
    tree.add("/link", Node(Kind.LINK, mode=0o777, target='a b\\c "x"'))
    tree.add("/state", Node(Kind.DIRECTORY, mode=0o1770, uid=101, gid=102))
    return tree


def listing(image: Path) -> dict[str, str]:
    """Mode, owner and time by path, as `unsquashfs -lln` tells them."""
    said = subprocess.run(
        ["unsquashfs", "-UTC", "-lln", "-d", "root", image],
        check=True,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin"},
    )
    matches = [
        re.fullmatch(r"(\S+) (\S+) +\d+ (\S+ \S+) root(.*)", line) for line in said.stdout.splitlines()
    ]
    return {match[4]: f"{match[1]} {match[2]} {match[3]}" for match in matches if match}


def test_names_owners_modes_and_times(tmp_path: Path) -> None:
    image = tmp_path / "image"
    pack(sample(), image)
    nodes = listing(image)
    assert image.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [image]
    assert nodes[""] == "drwxr-xr-x 0/0 1970-01-12 13:46"
    assert nodes["/empty"] == "-rwsr-xr-x 70000/1 1970-01-01 00:16"
    assert nodes["/state"] == "drwxrwx--T 101/102 1970-01-12 13:46"
    assert '/link -> a b\\c "x"' in nodes
    assert {f"/names/{name}" for name in NAMES} <= set(nodes)


def test_contents(tmp_path: Path) -> None:
    pack(sample(), tmp_path / "image")
    for name in ("plain", "a b"):
        content = subprocess.run(
            ["unsquashfs", "-cat", tmp_path / "image", f"names/{name}"], check=True, capture_output=True
        )
        assert content.stdout == name.encode()


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "other"):
        pack(sample(), tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["#comment", "new\nline", "nul\0", "del\x7f"])
def test_names_that_cannot_be_written_down(tmp_path: Path, name: str) -> None:
    tree = Tree(1)
    tree.add(f"/{name}", Node(Kind.FILE))
    with pytest.raises(ImageError, match="is a name that mksquashfs cannot be told"):
        pack(tree, tmp_path / "image")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_is_replaced_only_by_a_whole_image(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_text("old")
    tree = Tree(1)
    tree.add("/#x", Node(Kind.FILE))
    with pytest.raises(ImageError):
        pack(tree, image)
    assert image.read_text() == "old"
    pack(sample(), image)
    assert image.read_bytes()[:4] == b"hsqs"
