"""Images: how they are named, and what their manifest promises (docs/interface-1.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from agent.model.probe import Probe

INTERFACE = 1
"""The version of the host–image contract this agent implements."""

MANIFEST_PATH = "usr/lib/appliance/manifest.yaml"
"""Where an image carries its manifest, relative to the image's root."""

ARCHITECTURE = "x86_64"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """SHA-256 of an image file, 64 lower-case hex digits."""

    hex: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `sha256:HEX` or `sha256-HEX`; None where it is neither."""
        scheme, digits = text[:7], text[7:]
        valid = (
            scheme in {"sha256:", "sha256-"} and len(digits) == 64 and set(digits) <= set("0123456789abcdef")
        )
        return cls(digits) if valid else None

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Digest of bytes in memory."""
        return cls(hashlib.sha256(content).hexdigest())

    @property
    def directory(self) -> str:
        """Name of the image's directory in the store."""
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        """Twelve digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """What an administrator writes after `image:`: exactly one digest, or a name with or without a
    version."""

    name: str = ""
    version: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        if self.digest:
            return str(self.digest)
        return f"{self.name}:{self.version}" if self.version else self.name


class ReadyKind(StrEnum):
    """How a guest knows that its service answers."""

    TCP = "tcp"
    UDP = "udp"
    EXEC = "exec"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True)
class Ready:
    """One readiness condition: `port` for tcp and udp, `exec` for exec, neither for notify."""

    kind: ReadyKind
    port: int = 0
    exec: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """The one program an image exists for. Commands are argument vectors, never shell text.

    One of `reload_signal` and `reload_exec` tells it of new files; with neither it is started anew."""

    exec: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    ready: tuple[Ready, ...] = ()
    ready_timeout_s: float = 30.0
    stop_signal: str = "TERM"
    stop_timeout_s: float = 5.0
    reload_signal: str = ""
    reload_exec: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def reloads(self) -> bool:
        """Whether it takes new files without a restart."""
        return bool(self.reload_signal or self.reload_exec)


@dataclass(frozen=True, slots=True)
class DataFormat:
    """Where the data volume is mounted, the format this image writes, and the formats it can read."""

    mount: str
    format: int = 1
    reads: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Requests:
    """What the image asks of the host. The administrator's file grants; this is the default where it is
    silent."""

    memory_bytes: int = 32 << 20
    ports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """`/usr/lib/appliance/manifest.yaml` of an image, checked.

    `health` is asked inside of the guest, `probes` by the host."""

    interface: int
    name: str
    version: str
    vendor: str
    architecture: str
    role: str
    service: Service
    health: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    data: DataFormat | None = None
    requests: Requests = field(default_factory=Requests)
    probes: tuple[Probe, ...] = ()

    @property
    def reference(self) -> str:
        """`dns-nsd:4.6.1-1`."""
        return f"{self.name}:{self.version}"

    @property
    def title(self) -> str:
        """`dns-nsd 4.6.1-1`."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store. `imported_at` is in seconds since the epoch."""

    digest: Digest
    path: str
    size_bytes: int
    imported_at: float
    manifest: Manifest

    def matches(self, reference: ImageReference) -> bool:
        """Whether `reference` may mean this image. A version also means those it begins: `4.6` means
        `4.6.1-1`."""
        if reference.digest:
            return reference.digest == self.digest
        rest = self.manifest.version.removeprefix(reference.version)
        begins = rest != self.manifest.version and rest[:1] in {"", ".", "-", "+"}
        return reference.name == self.manifest.name and (not reference.version or begins)
