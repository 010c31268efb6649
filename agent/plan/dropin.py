"""The generated part of an appliance's unit: only what differs from one appliance, or one host, to the next.

units/appliance@.service is complete for systemd 253 and later but for OpenFile=, which older versions would
warn about at every reload. For those the sandbox is loosened here, exactly as far as the launcher needs to
open /dev/net/tun itself.
"""

from __future__ import annotations

from agent.config.units import format_span
from agent.model.appliance import KERNEL, Appliance
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.network import Port
from agent.plan.unit import UnitFile

NAME = "50-appliance.conf"

# The kernel's text and data, one stub process per guest process, and page tables; 7 MiB were measured for
# one service.
OVERHEAD_BYTES = 24 << 20
# The host's share of a start: systemd, the launcher and the guest kernel, under load.
START_MARGIN_S = 15.0
WATCHDOG_INTERVALS = 5
MINIMUM_WATCHDOG_S = 2.0


def watchdog_s(health_interval_s: float) -> float:
    """How long a guest may be silent before systemd kills it."""
    return max(MINIMUM_WATCHDOG_S, WATCHDOG_INTERVALS * health_interval_s)


def render_drop_in(
    appliance: Appliance,
    image: Image | None,
    ports: tuple[Port, ...],
    *,
    core: int,
    memory_bytes: int,
    data_volume: str,
    host: HostFacts,
) -> str:
    """Text of `appliance@NAME.service.d/50-appliance.conf`; an appliance without an image gets as much as
    can be said."""
    unit = UnitFile(
        f"Written by appliance-agent from /etc/appliance/appliances/{appliance.name}.yaml; do not edit.",
        "Put your own settings into another file beside this one.",
    )
    if image:
        unit.add("Unit", "Description", f"Appliance {appliance.name} ({image.manifest.title})")
    unit.add("Service", "CPUAffinity", str(core))
    unit.add("Service", "MemoryMax", str(memory_bytes + OVERHEAD_BYTES))
    unit.add("Service", "WatchdogSec", format_span(watchdog_s(appliance.health_interval_s)))
    if image:
        service = image.manifest.service
        unit.add("Service", "TimeoutStartSec", format_span(service.ready_timeout_s + START_MARGIN_S))
        unit.add("Service", "TimeoutStopSec", format_span(service.stop_timeout_s + START_MARGIN_S))
        unit.add("Service", "LogExtraFields", f"APPLIANCE_IMAGE={image.manifest.reference}")
        unit.add("Service", "LogExtraFields", f"APPLIANCE_IMAGE_DIGEST={image.digest}")
    if data_volume:
        unit.add("Service", "BindPaths", data_volume)
    if appliance.kernel != KERNEL:
        add_kernel(unit, appliance.kernel)
        # Only our kernel shuts down in order on SIGTERM (packaging/kernel/patches).
        unit.add("Service", "ExecStop", f"/usr/lib/appliance/stop {appliance.name}")
    _add_devices(unit, ports, host)
    return unit.render()


def add_kernel(unit: UnitFile, path: str) -> None:
    """Give a kernel of the administrator's a place in the unit's root.

    It may be missing: the launcher says better than systemd that it is.
    """
    unit.add("Service", "BindReadOnlyPaths", f"-{path}")


def _add_devices(unit: UnitFile, ports: tuple[Port, ...], host: HostFacts) -> None:
    if host.opens_files:
        unit.add("Service", "OpenFile", "/run/systemd/notify:notify")
        for port in ports:
            unit.add("Service", "OpenFile", f"/dev/net/tun:tun{port.index}")
    else:
        unit.add("Service", "PrivateNetwork", "no")
        unit.add("Service", "PrivateDevices", "no")
