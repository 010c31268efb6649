"""One system user for each appliance, made by systemd-sysusers(8)."""

from __future__ import annotations

import pwd

from agent.model.errors import HostError, Problem
from agent.model.names import user_of
from agent.util.run import run


def user_id(appliance: str) -> int | None:
    """The uid of an appliance's user; None where there is none yet."""
    try:
        return pwd.getpwnam(user_of(appliance)).pw_uid
    except KeyError:
        return None


def group_id(appliance: str) -> int:
    """The gid of an appliance's group; HostError where its user was not made."""
    try:
        return pwd.getpwnam(user_of(appliance)).pw_gid
    except KeyError:
        raise HostError(f"There is no user {user_of(appliance)}.", problem=Problem.NOT_FOUND) from None


def create_user(appliance: str) -> None:
    """Make user and group. They stay when the appliance goes: an uid must not come back as somebody
    else's."""
    run(["systemd-sysusers", "--inline", f'u {user_of(appliance)} - "Appliance {appliance}" / -'])
