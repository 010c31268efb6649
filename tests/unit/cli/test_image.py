"""`appliancectl image`: the store as people and scripts see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent.cli import image as verbs
from agent.cli.main import main
from agent.cli.output import format_bytes
from agent.host.store import ImageStore
from agent.image.build import Built
from agent.model.errors import ImageError, Problem
from agent.model.image import Image
from agent.model.paths import Paths
from agent.model.recipe import Recipe
from agent.util.progress import Progress
from tests.fakes.images import make_image, manifest_text


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """The store of a host whose root is a temporary directory."""
    paths = Paths(tmp_path / "root")
    monkeypatch.setattr(verbs, "Paths", lambda: paths)
    return ImageStore(paths.images)


@pytest.fixture
def image(store: ImageStore, tmp_path: Path) -> Image:
    return store.import_file(make_image(tmp_path / "web.squashfs"))


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["image", *argv])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_list(store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys)
    header, row, _, count = out.splitlines()
    assert status == 0
    assert header.split() == ["NAME", "VERSION", "ROLE", "DIGEST", "SIZE", "IMPORTED", "USED", "BY"]
    assert row.split()[:4] == ["web", "1.0", "web-static/1", f"sha256:{image.digest.short}"]
    assert count == "1 image."
    assert call(capsys, "list", "--no-legend")[1].splitlines() == [row]


def test_list_as_json(store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = json.loads(call(capsys, "list", "--json")[1])
    assert record["digest"] == str(image.digest)
    assert (record["name"], record["version"], record["used_by"]) == ("web", "1.0", [])
    assert json.loads(call(capsys, "list", "--json=short")[1]) == [record]


def test_damage_is_told_beside_the_list(
    store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(image.path).parent / "manifest.yaml").unlink()
    status, out, err = call(capsys)
    assert (status, out.splitlines()[-1]) == (0, "0 images.")
    assert f"Image {image.digest} is not whole" in err


def test_import(store: ImageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_image(tmp_path / "dns.squashfs", manifest=manifest_text(name="dns"))
    status, out, err = call(capsys, "import", str(path))
    assert (status, out.split(":")[0]) == (0, "dns 1.0")
    assert err == f"Importing {path} …\n"
    record = json.loads(call(capsys, "import", str(path), "--json")[1])
    assert [str(image.digest) for image in store.images()] == [record["digest"]]


def test_importing_what_is_no_image(
    store: ImageStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text("x")
    status, out, err = call(capsys, "import", str(tmp_path / "x"))
    assert (status, out) == (Problem.INVALID_IMAGE.exit_status, "")
    assert err.splitlines()[-1] == f"appliancectl: {tmp_path / 'x'} is not a squashfs image."


@pytest.mark.parametrize("how", ["web", "web:1.0", "web:1", "digest", "short digest"])
def test_show(store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str], how: str) -> None:
    digests = {"digest": str(image.digest), "short digest": f"sha256:{image.digest.short}"}
    status, out, _ = call(capsys, "show", digests.get(how, how))
    assert status == 0
    assert f"Digest: {image.digest}\n" in out
    assert "Verified: yes\n" in out
    assert "\nrole: web-static/1\n" in out


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("mail", Problem.NOT_FOUND),
        ("web:3", Problem.NOT_FOUND),
        ("sha256:0000000", Problem.NOT_FOUND),
        ("sha256:", Problem.NOT_FOUND),
        ("../web", Problem.INVALID_IMAGE),
    ],
)
def test_what_cannot_be_shown(
    store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str], text: str, status: Problem
) -> None:
    assert call(capsys, "show", text)[0] == status.exit_status


def test_verify(store: ImageStore, image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = store.import_file(make_image(tmp_path / "dns.squashfs", manifest=manifest_text(name="dns")))
    assert call(capsys, "verify")[0] == 0
    Path(other.path).chmod(0o644)
    Path(other.path).write_bytes(b"x")
    status, out, err = call(capsys, "verify", "--no-legend")
    assert status == Problem.INVALID_IMAGE.exit_status
    assert [line.split()[-1] for line in out.splitlines()] == ["damaged", "sound"]
    assert f"not {other.digest}" in err
    records = json.loads(call(capsys, "verify", "--json")[1])
    assert [record["sound"] for record in records] == [False, True]
    assert call(capsys, "verify", "web")[0] == 0


def test_remove(store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "remove", "web") == (0, f"Removed {image.digest}.\n", "")
    assert store.images() == []
    assert call(capsys, "remove", "web")[0] == Problem.NOT_FOUND.exit_status


def test_a_damaged_image_can_be_removed(
    store: ImageStore, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(image.path).parent / "manifest.yaml").unlink()
    assert call(capsys, "remove", str(image.digest))[0] == 0
    assert store.damaged() == []


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """In place of the real builder: makes a small image at once, and notes what it was asked for."""
    asked: list[Recipe] = []

    def build(recipe: Recipe, output: Path, _: Progress) -> Built:
        asked.append(recipe)
        make_image(output, manifest=manifest_text(name=recipe.name))
        return Built(output, output.stat().st_size, recipe.manifest, ("libc6 2.41-12 amd64",))

    monkeypatch.setattr("agent.image.build.build", build)
    return asked


def test_build_into_the_store(
    store: ImageStore, builder: list[Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "build", "dns-nsd")
    (image,) = store.images()
    assert (status, out.splitlines()[-1]) == (0, image.path)
    assert builder[0].packages == ("nsd",)


def test_build_to_a_file(
    store: ImageStore, builder: list[Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "dns.squashfs"
    record = json.loads(call(capsys, "build", "dns-nsd", "--output", str(output), "--json")[1])
    assert record["path"] == str(output)
    assert record["packages"] == [{"name": "libc6", "version": "2.41-12", "architecture": "amd64"}]
    assert store.images() == []


def test_build_from_a_file_of_the_users(
    store: ImageStore, builder: list[Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(verbs.find_recipe("dns-nsd"), tmp_path / "own.yaml")
    assert call(capsys, "build", str(tmp_path / "own.yaml"))[0] == 0
    assert builder[0].path == str(tmp_path / "own.yaml")


def test_what_cannot_be_built(
    store: ImageStore, builder: list[Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("name: A\n")
    status, _, err = call(capsys, "build", str(tmp_path / "bad.yaml"))
    assert (status, "bad.yaml:1:7: name" in err) == (Problem.INVALID_CONFIGURATION.exit_status, True)
    assert call(capsys, "build", str(tmp_path / "none.yaml"))[0] == Problem.NOT_FOUND.exit_status
    assert call(capsys, "build", "dns-nsd", "-o", "/nonexistent/x")[0] == Problem.NOT_FOUND.exit_status
    assert builder == []


def test_an_unknown_recipe_names_those_that_are_there() -> None:
    with pytest.raises(
        ImageError,
        match=r"There is no recipe “nope”\. Installed recipes: dhcp-dnsmasq, dns-knot, dns-nsd, .*web-nginx",
    ):
        verbs.find_recipe("nope")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0K"), (5779456, "5.5M"), (1 << 30, "1.0G"), (1 << 52, "4096.0T")],
)
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text
