"""An appliance as its administrator describes it: valid, complete, nothing optional left open."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.model.image import ImageReference
from agent.model.names import unit_of, user_of
from agent.model.network import Attachment
from agent.model.probe import Probe
from agent.model.swap import Snapshots
from agent.model.traffic import NO_GRANTS, NO_LIMITS, Destination, Grants, Limits, Publication
from agent.model.update import Group, Policy, Window

KERNEL = "/usr/lib/appliance/linux"
"""The guest kernel of the package appliance-kernel."""


class Isolation(StrEnum):
    """How UML keeps guest processes from guest memory: `strict` is ptrace, `fast` is seccomp (see
    docs/architecture.md)."""

    STRICT = "strict"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How an appliance comes to another image: what happens by itself, and when (None is any time); for how
    long it is watched before that counts, and how many older images are kept to go back to."""

    soak_s: float = 30.0
    keep: int = 1
    policy: Policy = Policy.MANUAL
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Appliance:
    """`/etc/appliance/appliances/NAME.yaml`. Sizes of 0 mean: what the image requests, or no data volume.

    `probes` of None are those of the image, an `egress` of None that of the networks."""

    name: str
    image: ImageReference
    networks: tuple[Attachment, ...]
    memory_bytes: int
    data_bytes: int
    health_interval_s: float
    isolation: Isolation
    kernel: str
    time_zone: str
    update: UpdateSettings = UpdateSettings()
    snapshots: Snapshots = Snapshots.AUTO
    probes: tuple[Probe, ...] | None = None
    group: Group | None = None
    publish: tuple[Publication, ...] = ()
    grants: Grants = NO_GRANTS
    peers: tuple[str, ...] = ()
    egress: tuple[Destination, ...] | None = None
    limits: Limits = NO_LIMITS

    @property
    def unit(self) -> str:
        """The systemd unit that runs it."""
        return unit_of(self.name)

    @property
    def user(self) -> str:
        """The system user its guest runs as."""
        return user_of(self.name)
