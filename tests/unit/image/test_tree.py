"""The image's root directory in memory."""

from __future__ import annotations

import pytest

from agent.image.tree import Kind, Node, Tree, merged
from agent.model.errors import ImageError

FILE = Node(Kind.FILE, mode=0o644, mtime=5)


def link(target: str) -> Node:
    return Node(Kind.LINK, target=target)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/lib/x", "/usr/lib/x"),
        ("./bin/x", "/usr/bin/x"),
        ("lib64/x", "/usr/lib64/x"),
        ("//sbin//x/", "/usr/sbin/x"),
        ("/usr/lib/x", "/usr/lib/x"),
        ("/library", "/library"),
        ("/a/../bin/x", "/usr/bin/x"),
        ("/", "/"),
    ],
)
def test_merged_usr(path: str, plain: str) -> None:
    assert merged(path) == plain


def test_an_empty_tree_has_a_merged_usr() -> None:
    tree = Tree(7)
    assert {path: node.target for path, node in tree.nodes.items() if node.kind is Kind.LINK} == {
        "/bin": "usr/bin",
        "/lib": "usr/lib",
        "/lib64": "usr/lib64",
        "/sbin": "usr/sbin",
    }
    assert tree.resolve("/lib64") == "/usr/lib64"


def test_parents_are_made() -> None:
    tree = Tree(7)
    tree.add("/a/b/c", FILE)
    assert [tree.nodes[path].kind for path in ("/a", "/a/b", "/a/b/c")] == [
        Kind.DIRECTORY,
        Kind.DIRECTORY,
        Kind.FILE,
    ]


def test_no_time_is_later_than_the_trees_and_none_is_missing() -> None:
    tree = Tree(7)
    for name, mtime in (("early", 5), ("late", 9), ("none", 0)):
        tree.add(f"/{name}", Node(Kind.FILE, mtime=mtime))
    assert [tree.nodes[path].mtime for path in ("/early", "/late", "/none")] == [5, 7, 7]


def test_files_replace_files_but_no_directories() -> None:
    tree = Tree(7)
    tree.add("/a/b", FILE)
    tree.add("/a/b", link("c"))
    assert tree.nodes["/a/b"].kind is Kind.LINK
    with pytest.raises(ImageError, match="/a is a directory of the image"):
        tree.add("/a", FILE)
    with pytest.raises(ImageError, match="/a/b is no directory in the image, so /a/b/c cannot be in it"):
        tree.add("/a/b/c", FILE)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/etc/real", "/etc/real"),
        ("/etc/relative", "/etc/real"),
        ("/etc/absolute", "/etc/real"),
        ("/etc/up", "/etc/real"),
        ("/through/real", "/etc/real"),
        ("/lib/inner", "/usr/lib/inner"),
        ("/etc/loop", None),
        ("/etc/dangling", None),
        ("/etc/nothing", None),
    ],
)
def test_resolving_links(path: str, end: str | None) -> None:
    tree = Tree(7)
    tree.add("/etc/real", FILE)
    tree.add("/usr/lib/inner", FILE)
    links = {
        "/etc/relative": "real",
        "/etc/absolute": "/etc/relative",
        "/etc/up": "../etc/real",
        "/through": "etc",
        "/etc/loop": "loop",
        "/etc/dangling": "gone",
    }
    for name, target in links.items():
        tree.add(name, link(target))
    assert tree.resolve(path) == end
