"""Which files of the packages become the image."""

from __future__ import annotations

import pytest

from agent.image.content import copyright_files, lacking_interpreters, libraries, matches, select
from agent.image.tree import Kind, Node, Tree
from agent.model.errors import ImageError
from tests.unit.image.packages import elf, package

LOADER = "/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
LIBC = package(
    "libc6",
    {
        f"{LIBRARIES}/libc.so.6": elf("ld-linux-x86-64.so.2"),
        f"{LIBRARIES}/libm.so.6": elf("libc.so.6"),
        f"{LIBRARIES}/ld-linux-x86-64.so.2": elf(),
        "/usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "/usr/share/doc/libc6/copyright": b"(c) libc",
    },
)
LIBEVENT = package(
    "libevent",
    {
        f"{LIBRARIES}/libevent.so.7": "libevent.so.7.0.1",
        f"{LIBRARIES}/libevent.so.7.0.1": elf("libc.so.6"),
        "/usr/share/doc/libevent": "libc6",
    },
)
NSD = package(
    "nsd",
    {
        "/usr/sbin/nsd": elf("libevent.so.7", "libc.so.6", interpreter=LOADER),
        "/usr/sbin/nsd-control-setup": b"#!/bin/sh\n",
        "/etc/nsd/nsd.conf": b"server:",
        "/etc/init.d/nsd": b"#!/bin/sh\n",
        "/usr/share/man/man8/nsd.8.gz": b"",
        "/usr/share/doc/nsd/copyright": b"(c) nsd",
        "/usr/lib/systemd/system/nsd.service": b"",
    },
)
PACKAGES = [LIBC, LIBEVENT, NSD]
AVAILABLE = {path: node for part in PACKAGES for path, node in part.nodes.items()}


def tree_of(*paths: str) -> Tree:
    tree = Tree(100)
    for path in paths:
        tree.add(path, AVAILABLE[path])
    return tree


@pytest.mark.parametrize(
    ("pattern", "path", "matching"),
    [
        ("/etc/nsd", "/etc/nsd", True),
        ("/etc/nsd", "/etc/nsd/conf.d/a", True),
        ("/etc/nsd", "/etc/nsd2", False),
        ("/usr/lib/*.a", "/usr/lib/x86_64-linux-gnu/libx.a", True),
        ("/lib/*.a", "/usr/lib/libx.a", True),
        ("/etc/rc?.d", "/etc/rc2.d/S01nsd", True),
        ("/ETC/nsd", "/etc/nsd", False),
    ],
)
def test_patterns(pattern: str, path: str, matching: bool) -> None:
    assert matches(path, [pattern]) is matching


def test_only_named_packages_and_only_what_a_guest_needs() -> None:
    chosen = select(PACKAGES, ("nsd",), include=(), exclude=("/usr/sbin/*-setup",))
    assert sorted(chosen) == ["/etc/nsd/nsd.conf", "/usr/sbin/nsd"]


def test_include_overrules_and_reaches_every_package() -> None:
    wanted = ("/usr/share/man/man8", f"{LIBRARIES}/libm.so*")
    chosen = select(PACKAGES, ("nsd",), include=wanted, exclude=("/usr", "/etc"))
    assert sorted(chosen) == [f"{LIBRARIES}/libm.so.6", "/usr/share/man/man8/nsd.8.gz"]


def test_libraries_with_their_links_and_the_loader() -> None:
    assert sorted(libraries(tree_of("/usr/sbin/nsd"), AVAILABLE)) == [
        f"{LIBRARIES}/ld-linux-x86-64.so.2",
        f"{LIBRARIES}/libc.so.6",
        f"{LIBRARIES}/libevent.so.7",
        f"{LIBRARIES}/libevent.so.7.0.1",
        "/usr/lib64/ld-linux-x86-64.so.2",
    ]


def test_a_library_in_a_place_of_its_own() -> None:
    own = package(
        "own", {"/opt/bin/x": elf("libown.so", runpath="$ORIGIN/../lib"), "/opt/lib/libown.so": elf()}
    )
    tree = Tree(100)
    tree.add("/opt/bin/x", own.nodes["/opt/bin/x"])
    assert list(libraries(tree, own.nodes)) == ["/opt/lib/libown.so"]


def test_everything_that_is_missing_is_named() -> None:
    without = {path: node for path, node in AVAILABLE.items() if node.package == "nsd"}
    with pytest.raises(ImageError) as caught:
        libraries(tree_of("/usr/sbin/nsd"), without)
    for wanted in ("libevent.so.7", "libc.so.6", LOADER):
        assert f"/usr/sbin/nsd needs {wanted}" in caught.value.message


def test_copyright_notices_also_by_a_link() -> None:
    notices = copyright_files(["libc6", "libevent", "nsd", "unknown"], AVAILABLE)
    assert {path: node.content for path, node in notices.items()} == {
        "/usr/share/doc/libc6/copyright": b"(c) libc",
        "/usr/share/doc/libevent/copyright": b"(c) libc",
        "/usr/share/doc/nsd/copyright": b"(c) nsd",
    }


@pytest.mark.parametrize(
    ("first_line", "wanted"),
    [
        (b"#!/bin/sh -e\n", ["/usr/bin/x needs /bin/sh"]),
        (b"#! /usr/bin/perl\n", ["/usr/bin/x needs /usr/bin/perl"]),
        (b"#!/run/appliance/bin/sh\n", []),
        (b"#!/usr/bin/here\n", []),
        (b"#!\n", []),
        (b"\x7fELF", []),
    ],
)
def test_interpreters(first_line: bytes, wanted: list[str]) -> None:
    tree = Tree(100)
    tree.add("/usr/bin/here", Node(Kind.FILE))
    tree.add("/usr/bin/x", Node(Kind.FILE, content=first_line))
    assert lacking_interpreters(tree) == wanted
