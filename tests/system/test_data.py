"""Data volumes on a real host: snapshots, going back, and a move under another name."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tests.system.conftest import Make
from tests.system.lab import Host
from tests.system.test_agent import agent_pid
from tests.system.test_first_appliance import fetch

WEB = """\
image: misbehave:1
network: {name: default, address: 10.88.0.80}
data: 8M
health: {interval: 400ms, probe: {http: {path: /}}}
"""
KILLS = 6


@pytest.fixture
def site(host: Host, make: Make) -> str:
    """An appliance with a counter on its data volume that stands at 1."""
    make("web", WEB, greeting="hello\n")
    host.run("systemctl", "start", "appliance@web")
    assert count(host) == 1
    return "web"


def count(host: Host) -> int:
    """Count on, and the counter then."""
    return int(fetch(host, "cgi-bin/count"))


def ctl(host: Host, *words: str) -> str:
    """Everything that `appliancectl data` said."""
    done = host.try_run("appliancectl", "data", *words)
    return done.stdout + done.stderr


def snapshots(host: Host, name: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in host.json("data", "snapshots", name)}


def volume(host: Host, name: str) -> dict[str, Any]:
    return dict(host.json("data", "show", name))


def test_a_snapshot_and_back_to_it(host: Host, site: str) -> None:
    shown = volume(host, site)
    assert (shown["size_bytes"], shown["format"], shown["snapshots"]) == (8 << 20, 1, 0)
    assert "snapshot before-edit taken; stopped for " in ctl(host, "snapshot", site, "before-edit")
    assert snapshots(host, site)["before-edit"]["maker"] == "the administrator"
    assert [count(host), count(host)] == [2, 3]
    cursor = host.cursor()
    said = ctl(host, "restore", site, "before-edit")
    assert "before-edit is the data volume; stopped for " in said
    assert count(host) == 2
    [event] = host.journal("APPLIANCE_EVENT=data_restored", since=cursor)
    assert event["APPLIANCE_SNAPSHOT"] == "before-edit"
    [aside] = set(snapshots(host, site)) - {"before-edit"}
    assert f"the data of before are snapshot {aside}." in said
    host.run("appliancectl", "data", "restore", site, aside)
    assert count(host) == 4
    host.run("appliancectl", "data", "remove", site, "before-edit")
    assert "before-edit" not in snapshots(host, site)


def test_data_that_nothing_starts_on_are_taken_back(host: Host, site: str) -> None:
    host.run("appliancectl", "data", "snapshot", site, "spoilt")
    where = f"/var/lib/appliance/appliances/{site}/snapshots/spoilt.img"
    host.run("dd", "if=/dev/zero", f"of={where}", "bs=1M", "count=8", "conv=notrunc")
    assert "spoilt was not restored, the data are those of before: " in ctl(host, "restore", site, "spoilt")
    assert count(host) == 2
    assert set(snapshots(host, site)) == {"spoilt"}


@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_9_at_any_instant_of_a_restore(host: Host, site: str, seed: int) -> None:
    host.run("appliancectl", "data", "snapshot", site, "kept")
    assert [count(host), count(host)] == [2, 3]
    host.run("appliancectl", "data", "restore", "--no-wait", site, "kept")
    time.sleep(random.Random(seed).uniform(0, 1.2))
    host.run("kill", "-9", str(agent_pid(host)))
    host.wait("the agent to be back", lambda: host.try_run("appliancectl", "list").returncode == 0)
    host.wait_health(site, "healthy")
    host.wait("the restore to have ended", lambda: '"work": null' in state(host, site))
    assert count(host) in {2, 4}
    assert "kept" in snapshots(host, site)
    assert host.run("appliancectl", "apply") == "Nothing to change.\n"


def state(host: Host, name: str) -> str:
    return host.run("cat", f"/var/lib/appliance/appliances/{name}/state")


def test_a_volume_is_made_larger(host: Host, site: str) -> None:
    assert "web: grow its data volume" in ctl(host, "resize", site, "16M")
    assert volume(host, site)["size_bytes"] == 16 << 20
    assert count(host) == 2
    text = host.run("cat", "/etc/appliance/appliances/web.yaml")
    assert text == WEB.replace("data: 8M", "data: 16M")
    assert "is not made smaller" in ctl(host, "resize", site, "8M")


def test_a_move(host: Host, site: str) -> None:
    """Out, away with it, and in again, as on another host."""
    assert count(host) == 2
    host.run("appliancectl", "data", "export", "--with-image", site, "/var/tmp/web.archive")
    assert count(host) == 3
    assert snapshots(host, site) == {}
    assert "exists already" in ctl(host, "import", "/var/tmp/web.archive")
    host.run("appliancectl", "stop", site)
    said = ctl(host, "import", "--replace", "/var/tmp/web.archive")
    assert "web: imported; the data of before are snapshot before-" in said
    host.run("appliancectl", "start", site)
    assert count(host) == 3
    host.run("sh", "-c", "head -c 5000 /var/tmp/web.archive >/var/tmp/cut.archive")
    assert "The archive cannot be used" in ctl(host, "import", "--name", "other", "/var/tmp/cut.archive")
    host.run("rm", "/var/tmp/web.archive", "/var/tmp/cut.archive")
