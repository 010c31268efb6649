"""Where things are on the host; documented in docs/architecture.md. Tests give another root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Every path below `root`, which is `/` on a real host."""

    root: Path = Path("/")

    @property
    def configuration(self) -> Path:
        """What the administrator writes."""
        return self.root / "etc/appliance"

    @property
    def units(self) -> Path:
        """Where generated drop-ins go."""
        return self.root / "etc/systemd/system"

    @property
    def runtime_units(self) -> Path:
        """Where drop-ins go that no reboot shall see."""
        return self.root / "run/systemd/system"

    @property
    def networkd(self) -> Path:
        """What systemd-networkd reads that no reboot shall see."""
        return self.root / "run/systemd/network"

    @property
    def network_manager(self) -> Path:
        """The same for NetworkManager."""
        return self.root / "run/NetworkManager/conf.d"

    @property
    def hosts(self) -> Path:
        """The host's names for addresses."""
        return self.root / "etc/hosts"

    @property
    def state(self) -> Path:
        """What must survive a reboot."""
        return self.root / "var/lib/appliance"

    @property
    def images(self) -> Path:
        """The image store."""
        return self.state / "images"

    @property
    def assignments(self) -> Path:
        """Addresses and cores once chosen."""
        return self.state / "assignments.json"

    @property
    def kept_configuration(self) -> Path:
        """The last configuration that was found valid."""
        return self.state / "configuration.json"

    @property
    def runtime(self) -> Path:
        """What must not survive a reboot."""
        return self.root / "run/appliance"

    @property
    def guest_runtime(self) -> Path:
        """The first part of every initrd."""
        return self.root / "usr/lib/appliance/runtime.cpio"

    @property
    def zoneinfo(self) -> Path:
        """Time zone files."""
        return self.root / "usr/share/zoneinfo"

    def drop_in_directory(self, appliance: str) -> Path:
        """Directory of the drop-ins of one appliance's unit."""
        return self.units / f"appliance@{appliance}.service.d"

    def appliance_state(self, appliance: str) -> Path:
        """`current`, `previous` and the data volume of one appliance."""
        return self.state / "appliances" / appliance

    def appliance_record(self, appliance: str) -> Path:
        """What is remembered of one appliance: its image, swaps, history."""
        return self.appliance_state(appliance) / "state"

    def data_volume(self, appliance: str) -> Path:
        """The data volume's image file."""
        return self.appliance_state(appliance) / "data.img"

    def snapshots(self, appliance: str) -> Path:
        """Copies of the data volume, as `ID.img`."""
        return self.appliance_state(appliance) / "snapshots"

    def generations(self, appliance: str) -> Path:
        """Its configurations, each a file."""
        return self.appliance_state(appliance) / "generations"

    def appliance_runtime(self, appliance: str) -> Path:
        """Launch plan and initrd of one appliance."""
        return self.runtime / appliance
