"""Archives of appliances: there and back, and by strangers; and what becomes of them on a host."""

from __future__ import annotations

import gzip
import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.host import arrival as arrivals
from agent.host import transfer
from agent.host.arrival import Arrival, check, check_free, check_image, install
from agent.host.snapshots import VolumeSnapshots
from agent.host.states import States
from agent.host.tar import end, header, padding
from agent.host.transfer import Contents, compressing, decompressing, unpack, write_archive
from agent.model.appliance import Appliance
from agent.model.errors import ApplianceError, ConfigurationError, HostError, ImageError, Problem
from agent.model.image import Digest
from agent.model.paths import Paths
from agent.plan.transfer import ArchiveManifest, render_manifest
from tests.fakes.samples import NETWORK, sample_image

IMAGE = sample_image()
YAML = b"image: dns-nsd\ndata: 8M\n"
DATA_BYTES = 8 << 20


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume.img"
    with path.open("wb") as file:
        for offset in (0, 1 << 20):
            file.seek(offset)
            file.write(b"data")
        file.truncate(DATA_BYTES)
    return path


@pytest.fixture
def contents(volume: Path) -> Contents:
    return Contents(
        appliance="dns",
        image_digest=IMAGE.digest,
        reference=IMAGE.manifest.reference,
        yaml=YAML,
        config={"zones/example.zone": b"zone", "nsd/x.conf": b""},
        data_format=1,
        data=volume,
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def packed(contents: Contents) -> bytes:
    stream = io.BytesIO()
    write_archive(contents, stream, now_us=5)
    return stream.getvalue()


def refused(content: bytes, target: Path) -> str:
    with pytest.raises(HostError) as caught:
        unpack(io.BytesIO(content), target)
    assert caught.value.problem is Problem.INVALID_ARCHIVE
    return str(caught.value)


def test_there_and_back(contents: Contents, volume: Path, target: Path) -> None:
    content = packed(contents)
    assert len(content) < 100 << 10
    manifest = unpack(io.BytesIO(content), target)
    assert (manifest.appliance, manifest.image, manifest.data_format) == ("dns", IMAGE.digest, 1)
    assert (target / "appliance.yaml").read_bytes() == YAML
    assert (target / "config/zones/example.zone").read_bytes() == b"zone"
    assert (target / "data.img").read_bytes() == volume.read_bytes()
    assert (target / "data.img").stat().st_blocks * 512 < 64 << 10
    assert (target / "data.img").stat().st_mode & 0o777 == 0o600


def test_with_its_image_and_without_data(contents: Contents, target: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"squashfs" * 1000)
    digest = Digest.of(image.read_bytes())
    content = packed(replace(contents, data=None, image=image, image_digest=digest))
    manifest = unpack(io.BytesIO(content), target)
    assert manifest.has("image.squashfs")
    assert not manifest.has("data.img")
    assert (target / "image.squashfs").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("zstd", [True, False])
def test_compressed(
    contents: Contents, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, zstd: bool
) -> None:
    if not zstd:
        monkeypatch.setattr(transfer, "_ZSTD", None)
    elif not transfer._ZSTD:
        pytest.skip("zstd is not installed")
    path = tmp_path / "x"
    with path.open("wb") as written, compressing(written) as stream:
        write_archive(contents, stream, now_us=5)
    assert path.stat().st_size < 4096
    with path.open("rb") as file, decompressing(file) as stream:
        assert unpack(stream, target).appliance == "dns"


@pytest.mark.parametrize("zstd", [True, False])
def test_compressed_and_cut_short(
    contents: Contents, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, zstd: bool
) -> None:
    if not zstd:
        monkeypatch.setattr(transfer, "_ZSTD", None)
    path = tmp_path / "x"
    with path.open("wb") as written, compressing(written) as stream:
        write_archive(contents, stream, now_us=5)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(HostError) as caught, path.open("rb") as file, decompressing(file) as stream:
        unpack(stream, target)
    assert caught.value.problem is Problem.INVALID_ARCHIVE


def test_garbage_that_begins_like_gzip(target: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(b"x" * 5000)[:10] + b"\xff" * 500)
    with pytest.raises(HostError) as caught, path.open("rb") as file, decompressing(file) as stream:
        unpack(stream, target)
    assert caught.value.problem is Problem.INVALID_ARCHIVE


def test_cut_short_anywhere(contents: Contents, tmp_path: Path) -> None:
    content = packed(contents)
    for number, length in enumerate(range(0, len(content) - 1024, 512)):
        target = tmp_path / f"t{number}"
        target.mkdir()
        refused(content[:length], target)


def test_a_byte_that_was_changed_in_any_member(contents: Contents, tmp_path: Path) -> None:
    content = packed(contents)
    for number, word in enumerate((YAML, b"zone\0", b"data\0", b'"appliance": "dns"')):
        target = tmp_path / f"t{number}"
        target.mkdir()
        place = content.rindex(word)
        refused(content[:place] + b"~" + content[place + 1 :], target)


def resewn(contents: Contents) -> list[bytes]:
    """The members of an archive without data, each with its header, to be put together in another way."""
    stream = io.BytesIO()
    found = write_archive(replace(contents, data=None), stream, now_us=5)
    texts = {"appliance.yaml": YAML, **{f"config/{path}": text for path, text in contents.config.items()}}
    texts = {"manifest.json": render_manifest(found), **texts}
    return [header(name, len(text)) + text + padding(len(text)) for name, text in texts.items()]


def test_members_that_are_missing_moved_or_too_many(contents: Contents, tmp_path: Path) -> None:
    members = resewn(contents)
    assert len(members) == 4
    extra = header("config/more", 0)
    for number, archive in enumerate(
        (
            members[1:],
            [members[0], *members[2:]],
            [members[0], members[2], members[1], members[3]],
            [*members, members[3]],
            [*members, extra],
            [members[0], members[0], *members[1:]],
            [members[0], extra, *members[1:]],
        )
    ):
        target = tmp_path / f"t{number}"
        target.mkdir()
        refused(b"".join(archive) + end(), target)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            ["volume.img", *(f"t{n}" for n in range(number + 1))]
        )


def test_no_space(contents: Contents, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "free_bytes", lambda _path: 100)
    with pytest.raises(HostError) as caught:
        unpack(io.BytesIO(packed(contents)), target)
    assert caught.value.problem is Problem.NO_SPACE
    assert list(target.iterdir()) == []


# --- on a host


class Store:
    """A store in which there is the image, unless `gone`."""

    gone = False

    def __init__(self, _root: Path) -> None:
        pass

    def get(self, digest: Digest) -> object:
        if self.gone or digest != IMAGE.digest:
            raise ImageError("There is no such image.", problem=Problem.NOT_FOUND)
        return IMAGE


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = Paths(tmp_path / "host")
    (paths.configuration / "networks").mkdir(parents=True)
    (paths.configuration / "networks/default.yaml").write_text(NETWORK)
    (paths.state / "appliances").mkdir(parents=True)
    monkeypatch.setattr(arrivals, "user_id", lambda _name: 900)
    monkeypatch.setattr(arrivals, "group_id", lambda _name: os.getgid())
    monkeypatch.setattr(arrivals, "ImageStore", Store)
    monkeypatch.setattr(Store, "gone", False)
    try:
        os.chown(tmp_path, 0, os.getgid())
    except PermissionError:
        pytest.skip("files cannot be given to root")
    return paths


def arrive(paths: Paths, contents: Contents, name: str = "dns") -> Arrival:
    staging = paths.state / ".import"
    staging.mkdir()
    manifest: ArchiveManifest = unpack(io.BytesIO(packed(contents)), staging)
    return Arrival(paths, staging, manifest, name)


def test_an_appliance_arrives(paths: Paths, contents: Contents, volume: Path) -> None:
    arrival = arrive(paths, contents, "dns-2")
    check_free(arrival)
    appliance = check(arrival)
    assert isinstance(appliance, Appliance)
    assert install(arrival, appliance, check_image(arrival, appliance), now_us=5) == ""
    assert (paths.configuration / "appliances/dns-2.yaml").read_bytes() == YAML
    assert (paths.configuration / "config/dns-2/zones/example.zone").read_bytes() == b"zone"
    placed = paths.data_volume("dns-2")
    assert placed.read_bytes() == volume.read_bytes()
    assert placed.stat().st_mode & 0o777 == 0o660
    state = States(paths).read("dns-2")
    assert (state.image, state.wanted, state.data_format) == (IMAGE.digest, "dns-nsd", 1)
    with pytest.raises(HostError) as caught:
        check_free(arrival)
    assert caught.value.problem is Problem.ALREADY_EXISTS
    assert [path.name for path in (paths.configuration / "config").iterdir()] == ["dns-2"]


def test_it_takes_the_place_of_another(paths: Paths, contents: Contents, volume: Path) -> None:
    old = paths.data_volume("dns")
    old.parent.mkdir()
    old.write_bytes(b"old")
    (paths.configuration / "config/dns/old").mkdir(parents=True)
    arrival = arrive(paths, contents)
    aside = install(arrival, check(arrival), IMAGE, now_us=5)
    assert aside == "before-19700101t000000z"
    snapshots = VolumeSnapshots(paths)
    assert snapshots.path("dns", aside).read_bytes() == b"old"
    [found] = snapshots.snapshot_files("dns")
    assert found.note is not None
    assert found.note.maker == "an import"
    assert old.read_bytes() == volume.read_bytes()
    assert not (paths.configuration / "config/dns/old").exists()


def test_what_cannot_be_here(paths: Paths, contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    arrival = arrive(paths, replace(contents, yaml=b"image: dns-nsd\nnetwork: nowhere\n"))
    with pytest.raises(ConfigurationError, match=r"etc/appliance/appliances/dns\.yaml:2"):
        check(arrival)
    (arrival.directory / "appliance.yaml").write_bytes(b"image: dns-nsd\ndata: 4M\n")
    with pytest.raises(HostError, match="has 8M, and `data:` allows 4M"):
        check(arrival)
    (arrival.directory / "appliance.yaml").write_bytes(b"image: other\n")
    with pytest.raises(ApplianceError, match="is not what `image: other` means"):
        check_image(arrival, check(arrival))
    (arrival.directory / "appliance.yaml").write_bytes(YAML)
    newer = replace(arrival, manifest=replace(arrival.manifest, data_format=7))
    with pytest.raises(ImageError, match="the data volume has format 7"):
        check_image(newer, check(newer))
    monkeypatch.setattr(Store, "gone", True)
    with pytest.raises(ImageError, match="--with-image"):
        check_image(arrival, check(arrival))
    assert not paths.data_volume("dns").exists()
