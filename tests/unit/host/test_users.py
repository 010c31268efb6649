"""One system user for each appliance."""

from __future__ import annotations

import pwd

import pytest

from agent.host import users
from agent.model.errors import HostError


def test_users_that_are_there_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    root = pwd.getpwuid(0)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {"appliance-dns": root}[name])
    assert (users.user_id("dns"), users.group_id("dns"), users.user_id("web")) == (0, 0, None)
    with pytest.raises(HostError, match="appliance-web"):
        users.group_id("web")


def test_a_user_has_neither_a_home_nor_a_shell_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(users, "run", ran.append)
    users.create_user("dns")
    assert ran == [["systemd-sysusers", "--inline", 'u appliance-dns - "Appliance dns" / -']]
