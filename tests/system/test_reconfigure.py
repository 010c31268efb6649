"""Configurations on trial: with real guests, real reloads, and an agent that dies."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

from tests.system.conftest import ZONE, Make
from tests.system.lab import Host
from tests.system.test_agent import lost_queries, query_steadily
from tests.system.test_first_appliance import ask, fetch
from tests.system.test_swap import kill_agent, kill_agent_and_guest, kill_host

YAML = "/etc/appliance/appliances/web.yaml"
GREETING = "/etc/appliance/config/web/greeting"
WEB = (
    "image: misbehave:1\nnetwork: {name: default, address: 10.88.0.80}\ndata: 8M\n"
    "health: {interval: 400ms}\nupdate: {soak: 500ms}\n"
)
KILLS = int(os.environ.get("APPLIANCE_KILLS", "6"))


@pytest.fixture
def web(host: Host, make: Make) -> str:
    make("web", WEB, greeting="hello\n")
    host.run("systemctl", "start", "appliance@web")
    return "web"


def apply(host: Host, *words: str) -> str:
    """Everything that `appliancectl apply` said."""
    done = host.try_run("appliancectl", "apply", *words)
    return done.stdout + done.stderr


def ended(host: Host, name: str, *, count: int = 1) -> dict[str, Any]:
    """The last entry of the history, when there are so many."""

    def look() -> dict[str, Any] | None:
        entries: list[dict[str, Any]] = host.json("history", name)
        return entries[-1] if len(entries) >= count else None

    found = host.wait("the end of the trial", look)
    assert found is not None
    return found


def test_files_reach_the_running_guest(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    host.write(GREETING, "changed\n")
    assert "would reload its configuration (web)" in apply(host, "--dry-run")
    assert "web: runs with its new configuration" in apply(host)
    assert "changed" in fetch(host, "cgi-bin/about")
    assert host.unit(web, "MainPID") == pid
    assert host.appliance(web)["restart_pending"] is False
    entry = ended(host, web)
    assert (entry["result"], entry["old_image"]) == ("committed", entry["new_image"])
    assert apply(host) == "Nothing to change.\n"
    # And it is what every later start brings.
    host.run("systemctl", "restart", "appliance@web")
    assert "changed" in fetch(host, "cgi-bin/about")


def test_no_query_is_lost_while_zones_change(host: Host, dns: str) -> None:
    load = host.start("sh", "-c", query_steadily(host, 6))
    pid = host.unit(dns, "MainPID")
    time.sleep(1)
    zones = "/etc/appliance/config/dns/zones"
    host.write(f"{zones}/example.test.zone", ZONE.replace("10.88.0.80", "10.88.0.81"))
    assert "dns: runs with its new configuration" in apply(host)
    assert ask(host) == "10.88.0.81"
    host.write(f"{zones}/example.org.zone", ZONE)
    assert "dns: runs with its new configuration" in apply(host)
    assert ask(host, "www.example.org") == "10.88.0.80"
    host.run("rm", f"{zones}/example.org.zone")
    assert "dns: runs with its new configuration" in apply(host)
    assert ask(host, "www.example.org") == ""
    report, _ = load.communicate(timeout=60)
    sent, lost = lost_queries(report)
    assert sent >= 2500
    assert lost == 0
    assert host.unit(dns, "MainPID") == pid


def test_what_the_check_refuses_changes_nothing_and_survives_nothing(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    host.write("/etc/appliance/config/web/fail-check", "")
    refused = host.try_run("appliancectl", "apply")
    assert refused.returncode == 1
    assert "the image's check of the configuration failed: check failed" in refused.stderr
    assert host.unit(web, "MainPID") == pid
    assert fetch(host) == "misbehave 1\n"
    # Nobody tries it again by himself: not another run, not another agent, not systemd.
    assert "its configuration is not in force: the image's check" in apply(host)
    host.run("systemctl", "restart", "appliance-agent")
    host.run("systemctl", "restart", "appliance@web")
    assert fetch(host) == "misbehave 1\n"
    assert len(host.json("history", web)) == 1
    host.run("rm", "/etc/appliance/config/web/fail-check")
    assert apply(host) == "Nothing to change.\n"


def test_what_does_not_answer_is_taken_back(host: Host, web: str) -> None:
    cursor = host.cursor()
    host.write(YAML, WEB.replace("interval: 400ms", "interval: 400ms, probe: {tcp: 81}") + "memory: 40M\n")
    said = apply(host)
    assert "it does not answer from outside" in said
    host.wait_health(web, "healthy")
    assert host.unit(web, "MemoryMax") != {"MemoryMax": str(40 << 20)}
    assert ended(host, web)["result"] == "rolled-back"
    assert any("its configuration is not in force" not in text for text in host.messages(web, since=cursor))
    # What was to blame is mended; the same once more is asked for by name.
    assert "apply --retry" in apply(host)
    assert "it does not answer from outside" in apply(host, "--retry")
    host.write(YAML, WEB + "memory: 40M\n")
    assert "web: runs with its new configuration" in apply(host)
    assert ended(host, web, count=3)["result"] == "committed"


def test_going_back(host: Host, web: str) -> None:
    host.write(GREETING, "changed\n")
    apply(host)
    ended(host, web)
    host.run("appliancectl", "rollback", web)
    assert "hello" in fetch(host, "cgi-bin/about")
    assert "it was rolled back" in apply(host)
    host.run("appliancectl", "rollback", web)
    assert "changed" in fetch(host, "cgi-bin/about")
    assert apply(host) == "Nothing to change.\n"


def test_a_new_agent_tells_what_waits_and_leaves_the_guest_alone(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    host.write(GREETING, "changed\n")
    host.run("systemctl", "restart", "appliance-agent")
    assert host.unit(web, "MainPID") == pid
    assert host.appliance(web)["restart_pending"] is True
    assert "apply pending" in host.run("appliancectl", "list")
    host.run("systemctl", "restart", "appliance@web")
    assert "hello" in fetch(host, "cgi-bin/about")
    apply(host)
    assert host.appliance(web)["restart_pending"] is False
    assert "changed" in fetch(host, "cgi-bin/about")


def test_one_does_not_wait_for_the_watch_of_the_last(host: Host, web: str) -> None:
    host.write(YAML, WEB.replace("500ms", "1h"))
    assert apply(host) == "Nothing to change.\n"
    for greeting in ("one", "two", "three"):
        host.write(GREETING, f"{greeting}\n")
        assert "watching configuration" in apply(host)
        assert greeting in fetch(host, "cgi-bin/about")
    assert [entry["result"] for entry in host.json("history", web)] == ["committed"] * 2


def kinds_of_files(host: Host) -> list[str]:
    """What lies in the guest's directory, but for what belongs to a running one."""
    names = set(host.run("ls", "/run/appliance/web").split()) - {"reloaded", "uml"}
    return sorted(name.partition("-")[0] for name in names)


@pytest.mark.parametrize("seed", range(KILLS))
def test_death_at_any_moment_of_a_trial(host: Host, web: str, seed: int) -> None:
    chance = random.Random(seed)
    deaths = [kill_agent, kill_agent, kill_agent_and_guest, kill_agent, kill_host, kill_agent_and_guest]
    die = deaths[seed % len(deaths)]
    restarts = bool(chance.getrandbits(1))
    host.run("systemctl", "enable", "appliance@web")
    try:
        host.write(GREETING, "changed\n")
        if restarts:
            host.write(YAML, f"{WEB}memory: 40M\n")
        applying = host.start("appliancectl", "apply")
        time.sleep(chance.uniform(0.0, 0.9 if restarts else 0.6))
        die(host)
        applying.communicate(timeout=60)
        # Where the guest is not up, what was written is tried by itself, once the new agent is ready.
        host.wait("the agent", lambda: not is_busy(host, web), timeout_s=60)
        time.sleep(1)
        host.wait("rest", lambda: not is_busy(host, web), timeout_s=60)
        host.wait_health(web, "healthy")
        history = host.json("history", web)
        assert len(history) <= 2
        new = bool(history) and history[-1]["result"] == "committed"
        assert ("changed" if new else "hello") in fetch(host, "cgi-bin/about")
        assert host.json("image", "quarantine", "list") == []
        # While the agent tells the guest names, its end of the console is there.
        host.wait("nothing else", lambda: kinds_of_files(host) == ["initrd", "launch", "names"])
        assert apply(host, "--retry") == "Nothing to change.\n" or not new
    finally:
        host.run("systemctl", "disable", "appliance@web")


def is_busy(host: Host, name: str) -> bool:
    """Whether anything is under way on it."""
    state = host.run("cat", f"/var/lib/appliance/appliances/{name}/state")
    running = host.run("busctl", "--json=short", "tree", "--list", "org.appliance1").split()
    operations = [path for path in running if path.startswith("/org/appliance1/operation/")]
    states = [
        host.run("busctl", "get-property", "org.appliance1", path, "org.appliance1.Operation", "State")
        for path in operations
    ]
    return '"swap": null' not in state or any("running" in text for text in states)
