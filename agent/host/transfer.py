"""Writes an appliance into an archive, and unpacks one that a stranger may have made; what is in it says
agent.plan.transfer. Blocking.

Nothing is unpacked but into a directory of its own, and nothing of that is used before all of it has proven
to be what the manifest says.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from agent.host.snapshots import free_bytes
from agent.host.tar import Member, SparseFile, TarReader, end, header, padding
from agent.model.errors import HostError, Problem
from agent.model.image import Digest
from agent.plan.transfer import (
    CONFIG,
    DATA,
    IMAGE,
    MANIFEST,
    MAX_DATA_BYTES,
    MAX_MANIFEST_BYTES,
    YAML,
    ArchiveManifest,
    Entry,
    check_members,
    invalid,
    read_manifest,
    render_manifest,
)
from agent.util.run import reading_through, writing_through

_CHUNK_BYTES = 1 << 20
_ZSTD_MAGIC, _GZIP_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_ZSTD = shutil.which("zstd", path="/usr/bin:/bin")


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an archive; `data` and `image` are files, None where they do not."""

    appliance: str
    image_digest: Digest
    reference: str
    yaml: bytes
    config: Mapping[str, bytes]
    data_format: int = 0
    data: Path | None = None
    image: Path | None = None


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[SparseFile | None]:
    if path is None:
        yield None
        return
    with path.open("rb") as file:
        yield SparseFile.of(file.fileno())


def write_archive(contents: Contents, target: IO[bytes], *, now_us: int) -> ArchiveManifest:
    """Write an archive without compression; its manifest. What it is made from must not change meanwhile."""
    texts = {YAML: contents.yaml, **{f"{CONFIG}{path}": text for path, text in contents.config.items()}}
    with _opened(contents.data) as data, _opened(contents.image) as image:
        members = [Entry(name, len(text), hashlib.sha256(text).hexdigest()) for name, text in texts.items()]
        if data:
            members.append(_hashed(DATA, data.size_bytes, data.chunks()))
        if image:
            members.append(_hashed(IMAGE, image.real_size_bytes, _whole(image)))
        check_members(members)
        manifest = ArchiveManifest(
            appliance=contents.appliance,
            image=contents.image_digest,
            reference=contents.reference,
            data_format=contents.data_format,
            exported_at_us=now_us,
            members=tuple(members),
        )
        for name, text in {MANIFEST: render_manifest(manifest), **texts}.items():
            _write(target, header(name, len(text)), [text], len(text))
        if data:
            head = header(DATA, data.size_bytes, real_size_bytes=data.real_size_bytes)
            _write(target, head, data.chunks(), data.size_bytes)
        if image:
            _write(target, header(IMAGE, image.real_size_bytes), _whole(image), image.real_size_bytes)
        target.write(end())
    return manifest


def _hashed(name: str, size_bytes: int, chunks: Iterable[bytes]) -> Entry:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return Entry(name, size_bytes, digest.hexdigest())


def _whole(file: SparseFile) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(file.fd, _CHUNK_BYTES, offset):
        offset += len(chunk)
        yield chunk


def _write(target: IO[bytes], head: bytes, chunks: Iterable[bytes], size_bytes: int) -> None:
    target.write(head)
    target.writelines(chunks)
    target.write(padding(size_bytes))


@contextlib.contextmanager
def compressing(target: IO[bytes]) -> Iterator[IO[bytes]]:
    """A stream of which `target` gets what zstd(1) makes of it, or gzip where that is not installed."""
    if _ZSTD:
        with writing_through([_ZSTD, "-q", "-T0"], target) as stream:
            yield stream
    else:
        with gzip.GzipFile("", "wb", 6, target, 0.0) as packed:
            yield cast("IO[bytes]", packed)


@contextlib.contextmanager
def decompressing(source: IO[bytes]) -> Iterator[IO[bytes]]:
    """What an archive holds, compressed or not; `source` is a file that can be read from its beginning."""
    magic = os.pread(source.fileno(), 4, 0)
    if magic == _ZSTD_MAGIC:
        with reading_through(["zstd", "-dcq"], source) as stream:
            yield stream
    elif magic[:2] == _GZIP_MAGIC:
        with gzip.GzipFile(fileobj=source, mode="rb") as packed:
            try:
                yield cast("IO[bytes]", packed)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise invalid("it is damaged") from error
    else:
        yield source


def unpack(source: IO[bytes], directory: Path) -> ArchiveManifest:
    """Unpack an archive into an empty directory: its members lie there by their names.

    HostError INVALID_ARCHIVE where anything is not as its manifest says, NO_SPACE where it would not fit.
    """
    reader = TarReader(source)
    first = reader.next()
    if first is None or first.name != MANIFEST or not 0 < first.size_bytes <= MAX_MANIFEST_BYTES:
        raise invalid(f"it does not begin with {MANIFEST}")
    manifest = read_manifest(reader.read(first.size_bytes))
    _check_space(manifest, directory)
    for entry in manifest.members:
        member = reader.next()
        if member is None or (member.name, member.size_bytes) != (entry.name, entry.size_bytes):
            raise invalid(f"where {entry.name} should be, there is something else")
        _unpack_member(reader, member, directory / entry.name)
        if reader.digest() != entry.sha256:
            raise invalid(f"{entry.name} is damaged: its digest is another one")
    if reader.next() is not None:
        raise invalid("it has a member that its manifest does not name")
    return manifest


def _check_space(manifest: ArchiveManifest, directory: Path) -> None:
    needed, free = sum(entry.size_bytes for entry in manifest.members), free_bytes(directory)
    if needed > free:
        raise HostError(
            f"No space left for the archive: {needed >> 20}M needed, {free >> 20}M free.",
            problem=Problem.NO_SPACE,
        )


def _unpack_member(reader: TarReader, member: Member, path: Path) -> None:
    sparse = member.real_size_bytes >= 0
    if sparse != (member.name == DATA) or member.real_size_bytes > MAX_DATA_BYTES:
        raise invalid(f"{member.name} does not have the form that it must have")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        if sparse:
            file.truncate(member.real_size_bytes)
            for offset, length in reader.read_map(member.real_size_bytes):
                file.seek(offset)
                _copy(reader.chunks(length), file)
        else:
            _copy(reader.chunks(reader.left_bytes), file)
        os.fsync(fd)


def _copy(chunks: Iterable[bytes], file: IO[bytes]) -> None:
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]
