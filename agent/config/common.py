"""Checks shared by the readers of this layer: each returns what is wrong with a text, or ''."""

from __future__ import annotations

import ipaddress
import posixpath
import re

from agent.model.address import Address, Subnet
from agent.model.image import Digest, ImageReference
from agent.model.names import (
    APPLIANCE_NAME,
    IMAGE_NAME,
    IMAGE_VERSION,
    NAME_RULE,
    NETWORK_NAME,
)
from agent.model.network import IFNAMSIZ

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_UNIT_PATH = re.compile(r"[A-Za-z0-9/._+-]+")
_TIME_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")


def check_appliance_name(text: str) -> str:
    """The rule of agent.model.names for appliances."""
    return "" if APPLIANCE_NAME.fullmatch(text) else f"“{text}” is no appliance name: at most 21 {NAME_RULE}"


def check_network_name(text: str) -> str:
    """The rule of agent.model.names for networks."""
    return "" if NETWORK_NAME.fullmatch(text) else f"“{text}” is no network name: at most 12 {NAME_RULE}"


def check_group_name(text: str) -> str:
    """A group of appliances is named as an appliance is."""
    return "" if APPLIANCE_NAME.fullmatch(text) else f"“{text}” is no group name: at most 21 {NAME_RULE}"


def check_absolute_path(text: str) -> str:
    """An absolute path without `.`, `..`, doubled or trailing slashes; not `/` itself."""
    clean = (
        text.startswith("/")
        and text != "/"
        and posixpath.normpath(text) == text
        and not text.startswith("//")
    )
    return "" if clean else f"“{text}” is not an absolute path in its plain form"


def check_kernel_path(text: str) -> str:
    """The same, of characters that mean themselves in a list of mounts in a unit file."""
    if wrong := check_absolute_path(text):
        return wrong
    clean = _UNIT_PATH.fullmatch(text)
    return "" if clean else f"“{text}” has other characters than letters, digits and /._+-"


def check_domain(text: str) -> str:
    """A DNS domain in lower case."""
    return "" if _DOMAIN.fullmatch(text) else f"“{text}” is not a domain name"


def check_time_zone(text: str) -> str:
    """The form of a zone's name below /usr/share/zoneinfo."""
    return "" if _TIME_ZONE.fullmatch(text) else f"“{text}” is not a time zone such as Europe/Berlin"


def check_mac(text: str) -> str:
    """A unicast MAC address in lower-case hex with colons."""
    if not _MAC.fullmatch(text):
        return f"“{text}” is not a MAC address such as 02:00:00:12:34:56"
    return "the first byte of a MAC address must be even (unicast)" if int(text[:2], 16) & 1 else ""


def parse_reference(text: str) -> ImageReference | None:
    """`name`, `name:version` or `sha256:HEX`; None where it is none of them."""
    digest = Digest.parse(text)
    if digest:
        return ImageReference(digest=digest)
    name, colon, version = text.partition(":")
    if name == "sha256":
        return None
    if not IMAGE_NAME.fullmatch(name) or (colon and not IMAGE_VERSION.fullmatch(version)):
        return None
    return ImageReference(name=name, version=version)


def check_reference(text: str) -> str:
    """An image reference."""
    return "" if parse_reference(text) else f"“{text}” is no image: name, name:version or sha256:… expected"


def parse_address(text: str) -> Address | None:
    """An IPv4 or IPv6 address without a scope; None where it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else address


def check_address(text: str) -> str:
    """An IP address."""
    return "" if parse_address(text) else f"“{text}” is not an IP address"


def parse_subnet(text: str) -> Subnet | None:
    """`10.88.0.0/24` or `fd00::/64`, host bits zero; None where it is none."""
    try:
        return ipaddress.ip_network(text) if "/" in text and "%" not in text else None
    except ValueError:
        return None


def check_subnet(text: str) -> str:
    """A subnet that has room for the host and a guest."""
    subnet = parse_subnet(text)
    if subnet is None:
        return f"“{text}” is not a subnet such as 10.88.0.0/24 (host bits must be zero)"
    usable = subnet.num_addresses >= 4 and not (
        subnet.is_multicast or subnet.is_loopback or subnet.is_link_local
    )
    return "" if usable else f"“{text}” cannot be used for guests"


def check_pool(text: str) -> str:
    """A part of a subnet, of any size."""
    return "" if parse_subnet(text) else f"“{text}” is not a part of a subnet such as 192.0.2.128/26"


def check_interface_name(text: str) -> str:
    """The name of a network interface (dev_valid_name in the kernel), of characters that need no quoting."""
    if len(text) > IFNAMSIZ:
        return f"“{text}” is longer than the {IFNAMSIZ} bytes of an interface name"
    return "" if _INTERFACE.fullmatch(text) else f"“{text}” is no interface name"
