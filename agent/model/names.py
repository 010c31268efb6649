"""The rules for names, and the names derived from them.

An appliance's name becomes a unit instance, a host name, a user name and part of a path, so the rule is the
intersection of what those allow: no escaping is ever needed, and none is done.
"""

from __future__ import annotations

import re

# useradd(8) and utmp limit user names to 31 bytes; "appliance-" takes ten of them.
APPLIANCE_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,20}")
# "br-" and the name have to fit IFNAMSIZ, 15 bytes.
NETWORK_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,11}")
IMAGE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|[.-](?=[a-z0-9])){0,62}")
IMAGE_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,62}")
ROLE = re.compile(r"[a-z][a-z0-9-]{0,40}/[0-9]{1,4}")

SNAPSHOT_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")

NAME_RULE = "lower-case letters, digits and single dashes, beginning with a letter"


def is_appliance_name(text: str) -> bool:
    """Whether `text` may name an appliance (at most 21 characters)."""
    return APPLIANCE_NAME.fullmatch(text) is not None


def is_network_name(text: str) -> bool:
    """Whether `text` may name a network (at most 12 characters)."""
    return NETWORK_NAME.fullmatch(text) is not None


def is_snapshot_name(text: str) -> bool:
    """Whether `text` may name a snapshot of a data volume (at most 41 characters)."""
    return SNAPSHOT_NAME.fullmatch(text) is not None


def unit_of(appliance: str) -> str:
    """`dns` → `appliance@dns.service`."""
    return f"appliance@{appliance}.service"


def appliance_of(unit: str) -> str | None:
    """`appliance@dns.service` → `dns`; None for any other unit."""
    name = unit.removeprefix("appliance@").removesuffix(".service")
    return name if unit == unit_of(name) and is_appliance_name(name) else None


def check_instance_of(appliance: str) -> str:
    """`dns` → `dns.check`, the instance of appliance@.service that lints a configuration for it.

    No appliance has a dot in its name.
    """
    return f"{appliance}.check"


def user_of(appliance: str) -> str:
    """`dns` → `appliance-dns`, the system user (and group) its guest runs as."""
    return f"appliance-{appliance}"
