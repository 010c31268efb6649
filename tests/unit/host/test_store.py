"""The image store: images are there whole or not at all, whatever happens on the way."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config.common import parse_reference
from agent.host import store as store_module
from agent.host.store import IMAGE_FILE, MANIFEST_FILE, STAMP_FILE, ImageStore, stamp_of
from agent.model.errors import ApplianceError, HostError, ImageError, Problem
from agent.model.image import Digest, ImageReference
from agent.util.progress import SILENT
from tests.fakes.images import make_image, manifest_text

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "lib/images")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("source") / "web.squashfs", content=os.urandom(300_000))


def names(store: ImageStore) -> list[str]:
    """What lies in the store, strays included."""
    return sorted(entry.name for entry in store.root.iterdir())


def reference(text: str) -> ImageReference:
    parsed = parse_reference(text)
    assert parsed
    return parsed


@contextlib.contextmanager
def refused(problem: Problem, match: str = ".") -> Iterator[None]:
    with pytest.raises(ApplianceError, match=match) as caught:
        yield
    assert caught.value.problem is problem


def test_an_imported_image(store: ImageStore, source: Path) -> None:
    image = store.import_file(source)
    directory = store.root / image.digest.directory
    assert image.digest == Digest.of(source.read_bytes())
    assert image.manifest.title == "web 1.0"
    assert Path(image.path) == directory / IMAGE_FILE
    assert Path(image.path).read_bytes() == source.read_bytes()
    assert (directory / MANIFEST_FILE).read_text() == manifest_text()
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in (directory, *directory.iterdir())}
    assert modes == {directory.name: 0o755, IMAGE_FILE: 0o444, MANIFEST_FILE: 0o444, STAMP_FILE: 0o644}
    assert store.images() == [image]
    assert names(store) == [directory.name]


def test_the_stamp_is_that_of_the_file_in_its_final_place(store: ImageStore, source: Path) -> None:
    image = store.import_file(source)
    status = Path(image.path).stat()
    stamp = (Path(image.path).parent / STAMP_FILE).read_text()
    assert stamp == f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"
    assert store.is_verified(image)


def test_importing_again_changes_nothing(store: ImageStore, source: Path) -> None:
    first = store.import_file(source)
    status = Path(first.path).stat()
    assert store.import_file(source) == first
    assert Path(first.path).stat() == status
    assert len(names(store)) == 1


def test_importing_again_mends_a_damaged_image(store: ImageStore, source: Path) -> None:
    image = store.import_file(source)
    Path(image.path).unlink()
    Path(image.path).write_bytes(b"something else")
    store.import_file(source)
    assert store.verify(image.digest).digest == image.digest
    (Path(image.path).parent / MANIFEST_FILE).unlink()
    assert [damage.digest for damage in store.damaged()] == [image.digest]
    store.import_file(source)
    assert (store.images()[0].digest, store.damaged()) == (image.digest, [])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not a squashfs image"),
        (b"hsqs", "is not a squashfs image"),
        (b"\x7fELF" * 100, "is not a squashfs image"),
    ],
)
def test_what_is_no_image(store: ImageStore, tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with refused(Problem.INVALID_IMAGE, match):
        store.import_file(path)
    assert names(store) == []


def test_a_truncated_image(store: ImageStore, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(source.read_bytes()[:100_000])
    with refused(Problem.INVALID_IMAGE, "is truncated"):
        store.import_file(path)
    assert names(store) == []


def test_an_image_without_a_manifest(store: ImageStore, tmp_path: Path) -> None:
    with refused(Problem.INVALID_IMAGE, r"has no readable /usr/lib/appliance/manifest\.yaml"):
        store.import_file(make_image(tmp_path / "bare.squashfs", manifest=None))
    assert names(store) == []


def test_an_image_with_a_bad_manifest(store: ImageStore, tmp_path: Path) -> None:
    image = make_image(
        tmp_path / "bad.squashfs", manifest=manifest_text().replace("interface: 1", "interface: 7")
    )
    with refused(Problem.INVALID_IMAGE, r"bad\.squashfs:/.*manifest\.yaml:1:12: .*this agent implements 1"):
        store.import_file(image)
    assert names(store) == []


def test_files_that_are_not_files(store: ImageStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with refused(Problem.INVALID_IMAGE, "is not a regular file"):
            store.import_file(path)
    with refused(Problem.NOT_FOUND, "does not exist"):
        store.import_file(tmp_path / "nothing")


def test_a_full_disk_while_copying(store: ImageStore, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "_copy", full)
    with refused(Problem.NO_SPACE, "No space left while importing"):
        store.import_file(source)
    assert names(store) == []


def test_a_disk_that_is_really_full(source: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, with a file system smaller than the image."""
    script = f"""
import sys
from pathlib import Path
from agent.host.store import ImageStore
from agent.model.errors import HostError, Problem
store = ImageStore(Path({str(tmp_path)!r}) / "small")
try:
    store.import_file(Path({str(source)!r}))
except HostError as error:
    print(error.problem, list(store.root.iterdir()))
"""
    mount = f"mount -t tmpfs -o size=100k tmpfs '{tmp_path}/small' || exit 77; exec \"$@\""
    (tmp_path / "small").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("no mount namespace to be had")
    assert done.stdout == "NoSpace []\n"


def import_and_die(root: Path, source: Path, step: int) -> None:
    """Import, and be killed at the `step`th operation that touches the disk."""
    left = step

    def watch(event: str, _: object) -> None:
        nonlocal left
        if event in {
            "open",
            "os.rename",
            "os.mkdir",
            "os.chmod",
            "shutil.rmtree",
            "os.remove",
            "subprocess.Popen",
        }:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    ImageStore(root).import_file(source)


def test_killed_at_any_instant(store: ImageStore, source: Path) -> None:
    context = multiprocessing.get_context("fork")
    digest = Digest.of(source.read_bytes())
    for step in range(1000):
        process = context.Process(target=import_and_die, args=(store.root, source, step))
        process.start()
        process.join()
        status = process.exitcode
        process.close()
        # There whole, or not there at all; what is left over is gone with the next import.
        assert store.damaged() == []
        for image in store.images():
            assert store.verify(image.digest).digest == digest
        if status == 0:
            break
        with contextlib.suppress(ImageError):
            store.remove(digest)
    assert step > 20
    store.import_file(source)
    assert names(store) == [digest.directory]


def test_two_importers(store: ImageStore, source: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=ImageStore(store.root).import_file, args=(source,)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    assert names(store) == [Digest.of(source.read_bytes()).directory]
    assert store.damaged() == []


@pytest.fixture
def versions(store: ImageStore, tmp_path: Path) -> ImageStore:
    for name, version in (("web", "1.10-1"), ("web", "1.9-1"), ("web", "1.9-2"), ("dns", "4.6.1-1")):
        store.import_file(
            make_image(tmp_path / "v.squashfs", manifest=manifest_text(name=name, version=version))
        )
    return store


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("web", "web 1.10-1"),
        ("web:1.9", "web 1.9-2"),
        ("web:1.9-1", "web 1.9-1"),
        ("web:1", "web 1.10-1"),
        ("dns:4.6", "dns 4.6.1-1"),
    ],
)
def test_what_a_reference_means(versions: ImageStore, text: str, title: str) -> None:
    assert versions.resolve(reference(text)).manifest.title == title


def test_the_latest_import_of_equal_versions(versions: ImageStore, tmp_path: Path) -> None:
    again = make_image(
        tmp_path / "again.squashfs", content=b"built again", manifest=manifest_text(version="1.10-1")
    )
    image = versions.import_file(again)
    for other in versions.images():
        if other.digest != image.digest:
            os.utime(other.path, ns=(1, 1))
    assert versions.resolve(reference("web")).digest == image.digest


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("mail", "Images here: dns, web."),
        ("web:2", "Of web there is: 1.9-1, 1.9-2, 1.10-1."),
        ("web:1.1", "Of web there is: 1.9-1, 1.9-2, 1.10-1."),
        (f"sha256:{'0' * 64}", "Images here: dns, web."),
    ],
)
def test_what_no_image_is_meant_by(versions: ImageStore, text: str, remedy: str) -> None:
    with pytest.raises(ImageError, match=f"There is no image {text}") as caught:
        versions.resolve(reference(text))
    assert caught.value.problem is Problem.NOT_FOUND
    assert caught.value.remedy == remedy


def test_an_empty_store(store: ImageStore) -> None:
    assert (store.images(), store.damaged()) == ([], [])
    with refused(Problem.NOT_FOUND, "The store is empty"):
        store.resolve(reference("web"))


def test_verifying_renews_the_stamp(store: ImageStore, source: Path) -> None:
    image = store.import_file(source)
    os.utime(image.path)
    assert not store.is_verified(image)
    store.verify(image.digest)
    assert store.is_verified(image)


def test_verifying_names_what_differs(store: ImageStore, source: Path) -> None:
    image = store.import_file(source)
    path = Path(image.path)
    manifest = path.parent / MANIFEST_FILE
    manifest.chmod(0o644)
    manifest.write_text(manifest_text(version="2.0"))
    with refused(Problem.INVALID_IMAGE, r"manifest\.yaml is not the manifest of the image"):
        store.verify(image.digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damaged")
    found = Digest.of(path.read_bytes())
    with refused(Problem.INVALID_IMAGE, f"its digest is {found}, not {image.digest}"):
        store.verify(image.digest)
    assert not store.is_verified(image)


def test_removing(store: ImageStore, source: Path) -> None:
    image = store.import_file(source)
    store.remove(image.digest)
    assert (store.images(), names(store)) == ([], [])
    with refused(Problem.NOT_FOUND):
        store.remove(image.digest)


@pytest.mark.parametrize("link", ["current", "previous", "previous-3", "next"])
def test_an_image_in_use_stays(store: ImageStore, source: Path, link: str) -> None:
    image = store.import_file(source)
    appliance = store.root.parent / "appliances/dns"
    appliance.mkdir(parents=True)
    (appliance / link).symlink_to(f"../../images/{image.digest.directory}")
    assert store.users(image.digest) == ["dns"]
    with refused(Problem.IN_USE, "is used by dns"):
        store.remove(image.digest)
    assert store.images() == [image]
    (appliance / link).unlink()
    store.remove(image.digest)


def test_strange_neighbours_are_left_alone(store: ImageStore, source: Path) -> None:
    store.import_file(source)
    for name in ("lost+found", "sha256-short", "sha256:" + "0" * 64, ".hidden"):
        (store.root / name).mkdir()
    assert len(store.images()) == 1
    assert store.damaged() == []


def test_no_permission_is_said(store: ImageStore, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(HostError, match="The image store belongs to root") as caught:
        store.import_file(source, SILENT)
    assert caught.value.problem is Problem.ACCESS_DENIED


def test_stamp_format(tmp_path: Path) -> None:
    status = tmp_path.stat()
    assert stamp_of(status).split() == [
        str(number) for number in (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    ]
