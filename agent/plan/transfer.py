"""The archive in which an appliance moves to another host: its manifest, and what may be in it. Pure.

    manifest.json           first; this, and size and SHA-256 of every other member, in their order
    appliance.yaml
    config/PATH …           the files of /etc/appliance/config/NAME
    data.img                the data volume, as a sparse member (GNU format 1.0)
    image.squashfs          only where that was asked for

Size and digest are those of the member as it lies in the archive. Everything is read as the work of a
stranger: names, sizes and digests are checked against the manifest, and that against the bounds here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.config.document import MAX_BYTES as MAX_YAML_BYTES
from agent.model.errors import HostError, Problem
from agent.model.image import Digest
from agent.model.names import is_appliance_name

VERSION = 1
MANIFEST, YAML, DATA, IMAGE, CONFIG = (
    "manifest.json",
    "appliance.yaml",
    "data.img",
    "image.squashfs",
    "config/",
)
MAX_MANIFEST_BYTES = 4 << 20
MAX_CONFIG_BYTES = 16 << 20
MAX_MEMBERS = 10_000
MAX_DATA_BYTES = 1 << 44
MAX_IMAGE_BYTES = 1 << 36
MAX_PATH_BYTES, MAX_NAME_BYTES = 1024, 200

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of the archive."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ArchiveManifest:
    """What an archive says of itself. `image` is a digest, `reference` its name and version; `data_format`
    is 0 where nobody had written to the volume, or there is none."""

    appliance: str
    image: Digest
    reference: str
    data_format: int
    exported_at_us: int
    members: tuple[Entry, ...]

    def has(self, name: str) -> bool:
        """Whether there is a member of this name."""
        return any(entry.name == name for entry in self.members)


def invalid(message: str) -> HostError:
    """What to raise for an archive that cannot be used."""
    return HostError(f"The archive cannot be used: {message}.", problem=Problem.INVALID_ARCHIVE)


def render_manifest(manifest: ArchiveManifest) -> bytes:
    """Its text."""
    content = {"version": VERSION, **asdict(manifest), "image": str(manifest.image)}
    return (json.dumps(content, indent=1) + "\n").encode()


def read_manifest(content: bytes) -> ArchiveManifest:
    """The manifest that this text is; HostError where it is none, or asks for more than may be."""
    try:
        document = json.loads(content)
        version = document["version"]
        if version != VERSION:
            raise invalid(f"it has version {version!r:.20}, and this program reads {VERSION}")
        manifest = _manifest(document)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise invalid(f"its manifest cannot be read ({type(error).__name__})") from error
    check_members(manifest.members)
    if manifest.has(IMAGE) and _entry(manifest, IMAGE).sha256 != manifest.image.hex:
        raise invalid("its image is not the one that its manifest names")
    return manifest


def _manifest(document: Mapping[str, Any]) -> ArchiveManifest:
    image = Digest.parse(_text(document["image"]))
    name = _text(document["appliance"])
    if image is None or not is_appliance_name(name):
        raise ValueError(name)
    return ArchiveManifest(
        appliance=name,
        image=image,
        reference=_text(document["reference"]),
        data_format=_number(document["data_format"], 1 << 31),
        exported_at_us=_number(document["exported_at_us"], 1 << 62),
        members=tuple(
            Entry(_text(entry["name"]), _number(entry["size_bytes"], 1 << 62), _text(entry["sha256"]))
            for entry in document["members"]
        ),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_PATH_BYTES or not value.isprintable():
        raise ValueError("not a text")
    return value


def _number(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError("not a number")
    return value


def _entry(manifest: ArchiveManifest, name: str) -> Entry:
    return next(entry for entry in manifest.members if entry.name == name)


def check_members(members: Sequence[Entry]) -> None:
    """HostError where a name, a size or a digest is not what may be in an archive."""
    names = [entry.name for entry in members]
    if len(names) > MAX_MEMBERS:
        raise invalid(f"it has more than {MAX_MEMBERS} members")
    if len(set(names)) != len(names):
        raise invalid("it has two members of one name")
    if YAML not in names:
        raise invalid(f"it has no {YAML}")
    for entry in members:
        if entry.size_bytes > _limit(entry.name):
            raise invalid(f"{entry.name} is too large")
        if not _HEX.fullmatch(entry.sha256):
            raise invalid(f"{entry.name} has no digest")
    files = {name for name in names if name.startswith(CONFIG)}
    if sum(entry.size_bytes for entry in members if entry.name in files) > MAX_CONFIG_BYTES:
        raise invalid("its configuration files are too large")
    for name in files:
        parts = name.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise invalid(f"{name} lies below a file")


def _limit(name: str) -> int:
    """The size that a member of this name may have; HostError where there is none of that name."""
    match name:
        case "appliance.yaml":
            return MAX_YAML_BYTES
        case "data.img":
            return MAX_DATA_BYTES
        case "image.squashfs":
            return MAX_IMAGE_BYTES
        case _ if name.startswith(CONFIG) and is_safe_path(name.removeprefix(CONFIG)):
            return MAX_CONFIG_BYTES
        case _:
            raise invalid(f"it has a member that does not belong there: {name!r:.60}")


def is_safe_path(path: str) -> bool:
    """Whether a relative path stays below where it is put, on any file system."""
    parts = path.split("/")
    return (
        len(path.encode()) <= MAX_PATH_BYTES - len(CONFIG)
        and path.isprintable()
        and all(part not in {"", ".", ".."} and len(part.encode()) <= MAX_NAME_BYTES for part in parts)
    )
