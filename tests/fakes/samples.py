"""Valid manifests, images, host facts and configuration files; tests change what they are about."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import yaml

from agent.config.tree import ConfigurationFiles
from agent.model.host import HostFacts
from agent.model.image import (
    ARCHITECTURE,
    INTERFACE,
    DataFormat,
    Digest,
    Image,
    Manifest,
    Ready,
    ReadyKind,
    Requests,
    Service,
)
from agent.plan.host import GuestInputs

DIRECTORY = "/etc/appliance"
NETWORK = "kind: isolated\nsubnets: [10.88.0.0/24]\n"


def sample_manifest(name: str = "dns-nsd", version: str = "4.6.1-1", **changes: Any) -> Manifest:
    """The manifest of a name server with a data volume."""
    values: dict[str, Any] = {
        "interface": INTERFACE,
        "name": name,
        "version": version,
        "vendor": "example.org",
        "architecture": ARCHITECTURE,
        "role": "dns-authoritative/1",
        "service": Service(exec=("/usr/sbin/nsd", "-d"), ready=(Ready(ReadyKind.UDP, port=53),)),
        "writable": ("/var/lib/nsd",),
        "data": DataFormat(mount="/data"),
        "requests": Requests(memory_bytes=32 << 20, ports=("53/udp",)),
    }
    return Manifest(**{**values, **changes})


def sample_image(name: str = "dns-nsd", version: str = "4.6.1-1", **changes: Any) -> Image:
    """An image as the store describes it; its digest follows from name and version."""
    digest = Digest.of(f"{name}:{version}".encode())
    return Image(
        digest=digest,
        path=f"/var/lib/appliance/images/{digest.directory}/image.squashfs",
        size_bytes=1 << 20,
        imported_at=0.0,
        manifest=sample_manifest(name, version, **changes),
    )


def sample_facts(**changes: Any) -> HostFacts:
    """A host with two cores and a systemd that knows OpenFile=."""
    values: dict[str, Any] = {
        "systemd_version": 257,
        "machine_id": "0123456789abcdef0123456789abcdef",
        "cores": (0, 1),
        "loops_per_jiffy": 24_000_000,
        "nameservers": (ipaddress.ip_address("192.0.2.53"),),
        "time_zone": "Europe/Berlin",
    }
    return HostFacts(**{**values, **changes})


def sample_inputs(image: Image | None = None, **changes: Any) -> GuestInputs:
    """What a plan for an appliance with this image is made from."""
    values: dict[str, Any] = {
        "image": image or sample_image(),
        "refusal": "",
        "configuration": {"nsd/zone": b"example.test\n"},
        "local_time": b"TZif",
        "data_volume": "/var/lib/appliance/appliances/dns/data.img",
    }
    return GuestInputs(**{**values, **changes})


def sample_files(
    appliances: Mapping[str, str | bytes | Mapping[str, Any]] | None = None,
    *,
    networks: Mapping[str, str] | None = None,
    agent: str = "",
) -> ConfigurationFiles:
    """Files below /etc/appliance, each given as text or as what the text is to say."""
    return ConfigurationFiles(
        agent={f"{DIRECTORY}/agent.yaml": agent.encode()},
        networks={
            f"{DIRECTORY}/networks/{name}.yaml": text.encode()
            for name, text in ({"default": NETWORK} if networks is None else networks).items()
        },
        appliances={
            f"{DIRECTORY}/appliances/{name}.yaml": _content(given)
            for name, given in ({"dns": "image: dns-nsd\n"} if appliances is None else appliances).items()
        },
    )


def _content(given: str | bytes | Mapping[str, Any]) -> bytes:
    if isinstance(given, bytes):
        return given
    return (given if isinstance(given, str) else yaml.safe_dump(given, allow_unicode=True)).encode()
