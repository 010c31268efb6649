"""The image store: images by digest, each in a directory of its own.

    images/
      sha256-HEX/                  there whole or not at all: renamed into place after fsync
        image.squashfs   0444      the image; its SHA-256 is HEX
        manifest.yaml    0444      a copy of the manifest inside it, to be read without unpacking anything
        verified         0644      one line `INODE SIZE MTIME_NS CTIME_NS`: what stat(2) said of
                                   image.squashfs when its digest was last proven
      .import.XXXXXXXX.staging/    an import at work, or what a killed one left (see agent.util.staging)

An image never changes under its name. Whoever relies on one compares `verified` with stat(2), which
costs nothing, and hashes again only where they differ: after a restore from a backup, or because
somebody wrote to the file. Renaming the directory leaves the file's ctime alone, so the stamp is taken
before it, after the last chmod.

What a crash can leave: a staging directory (removed by the next import); after `verify` or a repair an
old stamp (the image is hashed again); after `remove` a directory without some of its files, which
`damaged` names and `remove` or another import of the same image mends. Two processes may import the same
image: the second finds the first one's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config.manifest import MAX_BYTES, read_manifest
from agent.host.squashfs import check_image, read_file
from agent.model.errors import ApplianceError, ConfigurationError, HostError, ImageError, Problem
from agent.model.image import MANIFEST_PATH, Digest, Image, ImageReference, Manifest
from agent.model.versions import version_key
from agent.util.files import explain_full_disk, fsync_directory, write_file
from agent.util.progress import SILENT, Progress
from agent.util.staging import staging_directory

IMAGE_FILE = "image.squashfs"
MANIFEST_FILE = "manifest.yaml"
STAMP_FILE = "verified"
LINKS = ("current", "previous*", "next")
"""How an appliance's directory refers to images."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Damage:
    """A directory of the store that cannot be used, and why."""

    digest: Digest
    error: ApplianceError


def stamp_of(status: os.stat_result) -> str:
    """What `verified` holds for a file in this state; agent/launcher/image.c makes the same line."""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


@contextlib.contextmanager
def _explain(what: str) -> Iterator[None]:
    """Turn a full disk, missing permission and a read-only file system into an answer."""
    try:
        with explain_full_disk(what):
            yield
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise HostError(
            f"No permission for {what}: {error.filename or error.strerror}.",
            problem=Problem.ACCESS_DENIED,
            remedy="The image store belongs to root.",
        ) from error


class ImageStore:
    """The store at `root`. Appliances refer to images by the links in `root/../appliances/NAME/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._appliances = root.parent / "appliances"

    def import_file(self, path: Path, progress: Progress = SILENT) -> Image:
        """Copy an image into the store and return it; an image that is there already and sound is left
        alone.

        ImageError where it is no image or its manifest is not valid, HostError where the disk is full.
        """
        self.ensure_writable()
        with _explain(f"importing {path}"):
            with staging_directory(self.root, "import") as staging:
                with progress.step(f"Importing {path}"):
                    # Renaming a file changes its ctime, renaming the directory it lies in does not.
                    content = staging / "content"
                    content.mkdir()
                    content.chmod(0o755)
                    digest = _copy(path, content / IMAGE_FILE)
                    _complete(content, str(path))
                self._publish(content, digest)
            return self.get(digest)

    def ensure_writable(self) -> None:
        """Make the store's directory if need be; HostError where the caller may not write to it."""
        with _explain("writing to the image store"):
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.root))

    def images(self) -> list[Image]:
        """Every usable image: by name, then oldest version first, then by the time of its import."""
        images = [entry for entry in self._entries() if isinstance(entry, Image)]
        return sorted(images, key=_order)

    def damaged(self) -> list[Damage]:
        """What lies in the store and cannot be used."""
        return [entry for entry in self._entries() if isinstance(entry, Damage)]

    def get(self, digest: Digest) -> Image:
        """The image with this digest; ImageError where it is not there, or not whole."""
        directory = self._directory(digest)
        try:
            status = (directory / IMAGE_FILE).stat()
            content = (directory / MANIFEST_FILE).read_bytes()
        except FileNotFoundError as error:
            if directory.is_dir():
                raise ImageError(
                    f"Image {digest} is not whole: {error.filename} is missing.", remedy=_MEND
                ) from error
            raise self._not_found(ImageReference(digest=digest)) from error
        return Image(
            digest=digest,
            path=str(directory / IMAGE_FILE),
            size_bytes=status.st_size,
            imported_at=status.st_mtime,
            manifest=_parse(content, str(directory / MANIFEST_FILE)),
        )

    def resolve(self, reference: ImageReference) -> Image:
        """The image meant by `reference`: an exact version before one it begins, then the newest version
        and import."""
        if reference.digest:
            return self.get(reference.digest)
        candidates = [image for image in self.images() if image.matches(reference)]
        exact = [image for image in candidates if image.manifest.version == reference.version]
        if not candidates:
            raise self._not_found(reference)
        return (exact or candidates)[-1]

    def verify(self, digest: Digest) -> Image:
        """Hash the image again; renews its stamp, or raises an ImageError that names what differs."""
        image, stamp = self._prove(digest)
        path = Path(image.path)
        copy = path.with_name(MANIFEST_FILE)
        if copy.read_bytes() != _read_manifest_inside(path):
            raise ImageError(f"{copy} is not the manifest of the image beside it.", remedy=_MEND)
        if not self.is_verified(image):
            with _explain(f"stamping {path}"):
                write_file(path.with_name(STAMP_FILE), f"{stamp}\n")
        return image

    def prove(self, digest: Digest) -> Image:
        """The image after hashing it, and nothing else of what `verify` does."""
        return self._prove(digest)[0]

    def _prove(self, digest: Digest) -> tuple[Image, str]:
        image = self.get(digest)
        found, stamp = _hash(Path(image.path))
        if found != digest:
            raise ImageError(f"{image.path} is damaged: its digest is {found}, not {digest}.", remedy=_MEND)
        return image, stamp

    def is_verified(self, image: Image) -> bool:
        """Whether the image is unchanged since its digest was last proven."""
        path = Path(image.path)
        try:
            return path.with_name(STAMP_FILE).read_text(encoding="ascii").strip() == stamp_of(path.stat())
        except (OSError, UnicodeDecodeError):
            return False

    def users(self, digest: Digest) -> list[str]:
        """Names of the appliances that refer to the image, sorted."""
        links = (self._appliances.glob(f"*/{name}") for name in LINKS)
        return sorted({link.parent.name for found in links for link in found if _points_to(link, digest)})

    def remove(self, digest: Digest) -> None:
        """Take the image away; ImageError with IN_USE where an appliance runs it or may go back to it."""
        directory = self._directory(digest)
        if not directory.is_dir():
            raise self._not_found(ImageReference(digest=digest))
        if users := self.users(digest):
            raise ImageError(
                f"Image {digest} is used by {', '.join(users)}.",
                problem=Problem.IN_USE,
                remedy="Give these appliances another image first.",
            )
        with _explain(f"removing {directory}"):
            # The manifest goes first: without it nobody takes the rest for an image.
            (directory / MANIFEST_FILE).unlink(missing_ok=True)
            shutil.rmtree(directory)
            fsync_directory(self.root)

    def _directory(self, digest: Digest) -> Path:
        return self.root / digest.directory

    def _entries(self) -> Iterator[Image | Damage]:
        try:
            names = sorted(entry.name for entry in os.scandir(self.root))
        except FileNotFoundError:
            return
        for digest in filter(None, (Digest.parse(name) if name[6:7] == "-" else None for name in names)):
            try:
                yield self.get(digest)
            except ApplianceError as error:
                yield Damage(digest, error)

    def _publish(self, content: Path, digest: Digest) -> None:
        """Rename a complete directory into place, or mend what is there already."""
        target = self._directory(digest)
        try:
            os.rename(content, target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            self._mend(content, target, digest)
        fsync_directory(self.root)

    def _mend(self, content: Path, target: Path, digest: Digest) -> None:
        """Replace the files of an image that is not sound, the manifest last: it makes the image visible."""
        with contextlib.suppress(ApplianceError):
            self.verify(digest)
            return
        os.replace(content / IMAGE_FILE, target / IMAGE_FILE)
        write_file(target / STAMP_FILE, f"{stamp_of((target / IMAGE_FILE).stat())}\n")
        os.replace(content / MANIFEST_FILE, target / MANIFEST_FILE)
        fsync_directory(target)

    def _not_found(self, reference: ImageReference) -> ImageError:
        images = self.images()
        same = [image.manifest.version for image in images if image.manifest.name == reference.name]
        names = sorted({image.manifest.name for image in images})
        if same:
            there = f"Of {reference.name} there is: {', '.join(dict.fromkeys(same))}."
        else:
            there = (
                f"Images here: {', '.join(names)}."
                if names
                else "The store is empty; `appliancectl image import`."
            )
        return ImageError(f"There is no image {reference}.", problem=Problem.NOT_FOUND, remedy=there)


_MEND = "Import the image again."


def _order(image: Image) -> tuple[object, ...]:
    return image.manifest.name, version_key(image.manifest.version), image.imported_at, image.digest


def _points_to(link: Path, digest: Digest) -> bool:
    try:
        return os.path.basename(os.readlink(link)) == digest.directory
    except OSError:
        return False


def _open_regular(path: Path) -> int:
    """Open for reading; never waits at a FIFO or device."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist.", problem=Problem.NOT_FOUND) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"{path} is not a regular file.")
    return fd


def _copy(source: Path, target: Path) -> Digest:
    """Copy and hash in one pass, so that the digest is that of the copy whatever happens to the source
    meanwhile."""
    with open(_open_regular(source), "rb") as reader, target.open("x+b") as writer:
        check_image(reader.fileno(), str(source))
        digest = hashlib.sha256()
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
        check_image(writer.fileno(), str(source))
    return Digest(digest.hexdigest())


def _complete(directory: Path, source: str) -> None:
    """Put manifest and stamp beside the copied image."""
    image = directory / IMAGE_FILE
    content = _read_manifest_inside(image, source)
    _parse(content, f"{source}:/{MANIFEST_PATH}")
    write_file(directory / MANIFEST_FILE, content, mode=0o444)
    write_file(directory / STAMP_FILE, f"{stamp_of(image.stat())}\n")


def _read_manifest_inside(image: Path, name: str = "") -> bytes:
    try:
        return read_file(image, MANIFEST_PATH, limit_bytes=MAX_BYTES)
    except HostError as error:
        if error.problem is Problem.NOT_SUPPORTED:
            raise
        raise ImageError(f"{name or image} has no readable /{MANIFEST_PATH}: {error.message}") from error


def _parse(content: bytes, path: str) -> Manifest:
    try:
        return read_manifest(content, path)
    except ConfigurationError as error:
        raise ImageError(error.message) from error


def _hash(path: Path) -> tuple[Digest, str]:
    """Digest of a file and the stamp it had before; whoever writes to it meanwhile makes that stamp
    stale."""
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        return Digest(hashlib.file_digest(file, "sha256").hexdigest()), stamp
