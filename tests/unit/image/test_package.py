"""What is in a .deb."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.image.package import read_package
from agent.image.tree import Kind
from agent.model.errors import HostError

CONTROL = (
    "Package: sample\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n"
)


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(CONTROL)
    (root / "lib").mkdir()
    (root / "lib/program").write_bytes(b"program")
    (root / "lib/program").chmod(0o4755)
    (root / "lib/again").hardlink_to(root / "lib/program")
    (root / "lib/link").symlink_to("program")
    path = tmp_path / "sample_1%3a2.0-1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", root, path], check=True, stdout=subprocess.DEVNULL
    )
    return path


def test_names_and_files(deb: Path) -> None:
    package = read_package(deb)
    assert (package.name, package.version, package.architecture) == ("sample", "1:2.0-1", "all")
    assert package.version_without_epoch == "2.0-1"
    program = package.nodes["/usr/lib/program"]
    assert (program.content, program.mode, program.uid, program.package) == (b"program", 0o4755, 0, "sample")
    assert package.nodes["/usr/lib/again"] == program
    link = package.nodes["/usr/lib/link"]
    assert (link.kind, link.target) == (Kind.LINK, "program")
    assert package.nodes["/usr/lib"].kind is Kind.DIRECTORY


def test_what_is_no_package(tmp_path: Path) -> None:
    path = tmp_path / "sample_1_all.deb"
    path.write_bytes(b"nothing")
    with pytest.raises(HostError, match="dpkg-deb failed"):
        read_package(path)
