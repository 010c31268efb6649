"""An image is laid out from its recipe: complete, checked, and the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.manifest import read_manifest
from agent.config.recipe import read_recipe
from agent.image.build import build, lay_out
from agent.image.pack import pseudo_file
from agent.image.package import Package
from agent.image.tree import Kind, Tree
from agent.model.errors import HostError, ImageError, Problem
from agent.model.image import MANIFEST_PATH
from agent.model.recipe import Recipe
from tests.unit.image.packages import elf, package

LIBC = package(
    "libc6",
    {
        "/usr/lib/x86_64-linux-gnu/libc.so.6": elf(),
        "/usr/lib64/ld-linux-x86-64.so.2": elf(),
        "/usr/share/doc/libc6/copyright": b"(c)",
    },
)
NSD = package(
    "nsd",
    {"/usr/sbin/nsd": elf("libc.so.6", interpreter="/lib64/ld-linux-x86-64.so.2")},
    version="1:4.6.1-1+b2",
)
UNUSED = package("perl", {"/usr/bin/perl": elf("libc.so.6")})
RECIPE = """\
name: dns-nsd
role: dns-authoritative/1
vendor: example.org
suite: trixie
packages: [nsd]
users: {nsd: {uid: 101, home: /var/lib/nsd}}
directories: {/var/lib/nsd: {owner: nsd, mode: 0750}}
files: {/etc/motd: {text: "hello\\n"}}
links: {/etc/mtab: /proc/self/mounts}
manifest:
  service: {exec: [/usr/sbin/nsd, -d], prepare: [/usr/lib/appliance/prepare]}
  writable: [/var/lib/nsd, /var/cache/new]
  data: {mount: /data}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    prepare = tmp_path / "dns-nsd/usr/lib/appliance/prepare"
    prepare.parent.mkdir(parents=True)
    prepare.write_text("#!/run/appliance/bin/sh\n")
    prepare.chmod(0o700)
    return read_recipe(RECIPE.encode(), str(tmp_path / "dns-nsd.yaml"))


def lay(recipe: Recipe, *packages: Package) -> Tree:
    return lay_out(recipe, list(packages or (LIBC, NSD, UNUSED)))[0]


def text(tree: Tree, path: str) -> str:
    return tree.nodes[path].content.decode()


def test_what_is_in_an_image(recipe: Recipe) -> None:
    tree = lay(recipe)
    assert "/usr/bin/perl" not in tree.nodes
    assert tree.resolve("/lib64/ld-linux-x86-64.so.2")
    assert tree.nodes["/etc/resolv.conf"].target == "/run/appliance/resolv.conf"
    assert tree.nodes["/etc/mtab"].target == "/proc/self/mounts"
    assert tree.nodes["/usr/lib/appliance/prepare"].mode == 0o755
    assert tree.nodes["/tmp"].mode == 0o1777
    for path in ("/dev", "/proc", "/run", "/sys", "/data", "/var/cache/new"):
        assert tree.nodes[path].kind is Kind.DIRECTORY
    state = tree.nodes["/var/lib/nsd"]
    assert (state.uid, state.gid, state.mode) == (101, 101, 0o750)


def test_users(recipe: Recipe) -> None:
    tree = lay(recipe)
    assert text(tree, "/etc/passwd").splitlines() == [
        "root:x:0:0:root:/root:/usr/sbin/nologin",
        "nsd:x:101:101:nsd:/var/lib/nsd:/usr/sbin/nologin",
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
    ]
    assert text(tree, "/etc/group") == "root:x:0:\nnsd:x:101:\nnobody:x:65534:\n"


def test_the_manifest_has_the_version_of_the_first_package(recipe: Recipe) -> None:
    tree, manifest = lay_out(recipe, [LIBC, NSD])
    assert read_manifest(tree.nodes[f"/{MANIFEST_PATH}"].content, "x") == manifest
    assert (manifest.title, manifest.vendor) == ("dns-nsd 4.6.1-1+b2", "example.org")


def test_only_packages_with_files_in_the_image_are_listed(recipe: Recipe) -> None:
    tree = lay(recipe)
    assert text(tree, "/usr/lib/appliance/packages") == "libc6 1.0-1 amd64\nnsd 1:4.6.1-1+b2 amd64\n"
    assert text(tree, "/usr/share/doc/libc6/copyright") == "(c)"


def test_the_order_of_packages_does_not_matter(recipe: Recipe) -> None:
    one, other = (
        pseudo_file(lay(recipe, *order), sparse_field=False) for order in ((LIBC, NSD), (NSD, LIBC))
    )
    assert one == other


def test_the_time_of_the_image(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {node.mtime for node in lay(recipe).nodes.values()} == {100}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "50")
    assert {node.mtime for node in lay(recipe).nodes.values()} == {50}


def test_a_program_of_the_manifest_must_be_there(recipe: Recipe) -> None:
    service = replace(recipe.manifest.service, exec=("/usr/sbin/bind",), check=("/run/appliance/bin/true",))
    with pytest.raises(ImageError, match="/usr/sbin/bind is not there, or not executable") as caught:
        lay(replace(recipe, manifest=replace(recipe.manifest, service=service)))
    assert "/run/appliance" not in caught.value.message


def test_an_interpreter_must_be_there(recipe: Recipe) -> None:
    programs: dict[str, bytes | str] = {
        "/usr/sbin/setup": b"#!/bin/sh\n",
        "/usr/sbin/nsd": NSD.nodes["/usr/sbin/nsd"].content,
    }
    setup = package("nsd", programs)
    with pytest.raises(ImageError, match="/usr/sbin/setup needs /bin/sh"):
        lay(recipe, LIBC, setup)


def test_a_virtual_package_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ImageError, match="package dns-server is virtual"):
        lay(replace(recipe, packages=("dns-server",)))


def test_a_version_that_no_image_may_have(recipe: Recipe) -> None:
    odd = replace(NSD, version="4:5:6")
    assert lay_out(recipe, [LIBC, odd])[1].version == "6"


def test_missing_tools_are_named_with_their_packages(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "mksquashfs" else tool)
    with pytest.raises(HostError, match="apt-get install squashfs-tools") as caught:
        build(recipe, Path("/nonexistent/x"))
    assert caught.value.problem is Problem.NOT_SUPPORTED
