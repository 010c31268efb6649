"""What the plans need to know of the host."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.address import Address

OPEN_FILE_VERSION = 253
"""The systemd version that brought OpenFile= (systemd.service(5))."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Read once when the agent starts, by agent.host.facts.

    `loops_per_jiffy` is for the guest's `lpj=`; `time_zone` is a name below /usr/share/zoneinfo; `ipv6` is
    whether interfaces that are made get IPv6.
    """

    systemd_version: int
    machine_id: str
    cores: tuple[int, ...]
    loops_per_jiffy: int
    nameservers: tuple[Address, ...]
    time_zone: str
    ipv6: bool = True

    @property
    def opens_files(self) -> bool:
        """Whether systemd opens the tap device for the launcher, so that the unit can do without a view of
        it."""
        return self.systemd_version >= OPEN_FILE_VERSION
