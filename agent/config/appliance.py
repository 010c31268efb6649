"""Reads `/etc/appliance/appliances/NAME.yaml`. Called by agent.config.tree; the format is
appliance.yaml(5)."""

from __future__ import annotations

from agent.config.common import (
    check_address,
    check_appliance_name,
    check_group_name,
    check_kernel_path,
    check_mac,
    check_network_name,
    check_reference,
    check_time_zone,
    parse_address,
    parse_reference,
)
from agent.config.document import Section, Value
from agent.config.network import MAXIMUM_VLAN
from agent.config.probe import read_probes
from agent.config.traffic import read_egress, read_grants, read_limits, read_publications
from agent.config.window import check_window, parse_window
from agent.model.address import Address
from agent.model.appliance import KERNEL, Appliance, Isolation, UpdateSettings
from agent.model.image import ImageReference
from agent.model.network import Attachment
from agent.model.probe import Probe
from agent.model.swap import Snapshots
from agent.model.update import Group

MINIMUM_MEMORY_BYTES = 16 << 20
MINIMUM_DATA_BYTES = 4 << 20

MAXIMUM_KEPT = 20
MAXIMUM_HEALTHY = 1000
NO_PROBE = "none"


def read_appliance(name: str, section: Section, *, default_network: str) -> Appliance:
    """Settings from one file, defaults filled in; what is wrong is in the section's findings."""
    reference = parse_reference(section.text("image", check=check_reference)) or ImageReference(
        name="missing"
    )
    health = section.section("health") or Section(None, section.findings)
    appliance = Appliance(
        name=name,
        image=reference,
        networks=_attachments(section.get("network"), default_network),
        memory_bytes=section.size("memory", default=0, minimum=MINIMUM_MEMORY_BYTES, maximum=1 << 40),
        data_bytes=section.size("data", default=0, minimum=MINIMUM_DATA_BYTES, maximum=1 << 44),
        health_interval_s=health.span("interval", default=2.0, minimum=0.1, maximum=3600.0),
        isolation=section.choice("isolation", Isolation.STRICT),
        kernel=section.text("kernel", default=KERNEL, check=check_kernel_path),
        time_zone=section.text("timezone", default="", check=check_time_zone),
        update=_update(section.section("update")),
        snapshots=section.choice("snapshot", Snapshots.AUTO),
        probes=_probes(health.get("probe")),
        group=_group(section.get("group")),
        publish=read_publications(section.get("publish")),
        grants=read_grants(section.get("grants")),
        peers=_peers(section.get("peers")),
        egress=read_egress(section.get("egress")),
        limits=read_limits(section.section("limits")),
    )
    health.finish()
    section.finish()
    return appliance


def _probes(value: Value | None) -> tuple[Probe, ...] | None:
    """None leaves it to the image; `none` is the administrator's wish for none."""
    if value is None:
        return None
    return () if value.is_word(NO_PROBE) else read_probes(value)


def _update(section: Section | None) -> UpdateSettings:
    default = UpdateSettings()
    if section is None:
        return default
    settings = UpdateSettings(
        soak_s=section.span("soak", default=default.soak_s, maximum=86400.0),
        keep=section.integer("keep", default=default.keep, minimum=1, maximum=MAXIMUM_KEPT),
        policy=section.choice("policy", default.policy),
        window=parse_window(section.text("window", default="", check=check_window)),
    )
    section.finish()
    return settings


def _group(value: Value | None) -> Group | None:
    """A name, or a mapping that also says how many others are to be healthy."""
    if value is None:
        return None
    if not value.is_mapping():
        name = value.text(check=check_group_name)
        return Group(name) if name else None
    section = value.section()
    name = section.text("name", check=check_group_name)
    healthy = section.integer("healthy", default=1, minimum=0, maximum=MAXIMUM_HEALTHY)
    section.finish()
    return Group(name, healthy) if name else None


def _attachments(value: Value | None, default_network: str) -> tuple[Attachment, ...]:
    if value is None:
        return (Attachment(default_network),)
    attachments = tuple(_attachment(item) for item in value.items_or_self())
    names = [attachment.network for attachment in attachments]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        value.complain(f"network “{name}” is given twice")
    return attachments


def _attachment(value: Value) -> Attachment:
    if not value.is_mapping():
        return Attachment(value.text(check=check_network_name))
    section = value.section()
    attachment = Attachment(
        network=section.text("name", check=check_network_name),
        addresses=_addresses(section.get("address")),
        mac=section.text("mac", default="", check=check_mac),
        vlan=section.integer("vlan", default=0, minimum=1, maximum=MAXIMUM_VLAN)
        if "vlan" in section
        else None,
        default_route=section.flag("default-route", default=False) if "default-route" in section else None,
    )
    section.finish()
    return attachment


def _peers(value: Value | None) -> tuple[str, ...]:
    items = value.items_or_self() if value else ()
    return tuple(name for item in items if (name := item.text(check=check_appliance_name)))


def _addresses(value: Value | None) -> tuple[Address, ...]:
    items = value.items_or_self() if value else ()
    parsed = (parse_address(item.text(check=check_address)) for item in items)
    return tuple(address for address in parsed if address)
