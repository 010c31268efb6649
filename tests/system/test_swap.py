"""Swaps of images: what proves itself stays, what does not is taken back, and whatever happens, something
answers."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import images
from tests.system.conftest import Make
from tests.system.images import CRASH, NAME, Kind
from tests.system.lab import Host
from tests.system.test_agent import agent_pid
from tests.system.test_first_appliance import ask, fetch

WEB = """\
image: misbehave:1
network: {name: default, address: 10.88.0.80}
data: 8M
health: {interval: 400ms, probe: {http: {path: /}}}
update: {soak: 1s}
"""
LATE = (
    '[/bin/busybox, sh, -c, "/bin/busybox httpd -p 80 -h /www; /bin/busybox usleep 400000; '
    'echo gave up; exit 3"]'
)
LOOPBACK = '[/bin/busybox, httpd, -f, -p, "127.0.0.1:80", -h, /www]'
BAD = (
    Kind(name="crashes", exec=CRASH),
    Kind(name="late", exec=LATE),
    Kind(name="never-ready", port=81),
    Kind(name="panics", exec='[/bin/busybox, sh, -c, "echo c >/proc/sysrq-trigger"]'),
    Kind(name="panics-early", prepare="; echo c >/proc/sysrq-trigger"),
    Kind(name="deaf", exec=LOOPBACK),
    Kind(name="other-role", role="other/1"),
    Kind(name="newer-data", format=2, reads="[2]"),
    Kind(name="greedy", memory="64M", ports="80/tcp, 443/tcp"),
    Kind(name="spoiler", format=2, reads="[1, 2]", exec=LATE, prepare="; echo 999 >/data/count"),
    Kind(name=NAME, version="3", format=2, reads="[1, 2]"),
)
KILLS = int(os.environ.get("APPLIANCE_KILLS", "6"))
"""How often something is killed during a swap; each takes some seconds."""


@pytest.fixture(scope="module")
def bad_images(prepared_host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("bad")
    for kind in BAD:
        import_image(prepared_host, images.build(directory, kind))


def import_image(host: Host, path: Path) -> None:
    host.write(f"/var/tmp/{path.name}", path.read_bytes())
    host.run("appliancectl", "image", "import", f"/var/tmp/{path.name}")


@pytest.fixture
def site(host: Host, make: Make, bad_images: None) -> str:
    """misbehave:1 with a counter on its data volume that stands at 1."""
    make("web", WEB, greeting="hello\n")
    host.run("systemctl", "start", "appliance@web")
    assert fetch(host, "cgi-bin/count") == "1\n"
    return "web"


def swap(host: Host, *words: str) -> str:
    """Everything that `appliancectl swap` said."""
    done = host.try_run("appliancectl", "swap", *words)
    return done.stdout + done.stderr


def last(host: Host, name: str) -> dict[str, Any]:
    return dict(host.json("history", name)[-1])


def remains(host: Host, name: str) -> set[str]:
    """What lies in the appliance's state directory, snapshots by their name; not its configurations."""
    found = host.run("sh", "-c", f"cd /var/lib/appliance/appliances/{name}; find . -mindepth 1").split()
    return {path for path in found if not re.fullmatch(r"./generations/[0-9a-f]{12}", path)}


CLEAN = {"./current", "./data.img", "./generations", "./state", "./previous"}


def test_swap_there_and_back(host: Host, site: str) -> None:
    cursor = host.cursor()
    said = swap(host, site, "misbehave:2")
    assert "swapped from misbehave:1 to misbehave:2; no answer for" in said
    assert fetch(host) == "misbehave 2\n"
    assert fetch(host, "cgi-bin/count") == "2\n"
    [event] = host.journal("APPLIANCE_EVENT=swap_committed", since=cursor)
    assert event["APPLIANCE_IMAGE"] == "misbehave:2"
    assert event["APPLIANCE_OLD_IMAGE"] == "misbehave:1"
    entry = last(host, site)
    assert entry["result"] == "committed"
    assert int(event["APPLIANCE_DOWNTIME_MSEC"]) == pytest.approx(entry["downtime_us"] / 1000, abs=1)
    assert "misbehave 2" in host.run("systemctl", "status", "appliance@web")
    host.run("appliancectl", "rollback", site)
    assert fetch(host) == "misbehave 1\n"
    assert fetch(host, "cgi-bin/count") == "3\n"
    assert remains(host, site) <= CLEAN | {"./snapshots"}


def test_choice_outlives_agent_and_apply_until_the_configuration_says_otherwise(
    host: Host, site: str
) -> None:
    swap(host, site, "misbehave:2")
    host.run("systemctl", "restart", "appliance-agent")
    assert host.run("appliancectl", "apply") == "Nothing to change.\n"
    assert fetch(host) == "misbehave 2\n"
    host.run("sed", "-i", "s/^memory:.*//; $ a memory: 40M", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    assert fetch(host) == "misbehave 2\n"
    host.run("sed", "-i", "s/^image:.*/image: misbehave/", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    assert host.appliance(site)["image"] == "misbehave:2"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("crashes", "busybox ended"),
        ("late", "busybox ended"),
        ("never-ready", "not ready within"),
        ("panics", "the guest's kernel panicked"),
        ("deaf", "does not answer from outside"),
    ],
)
def test_image_that_fails_is_taken_back_and_not_trusted(
    host: Host, site: str, image: str, reason: str
) -> None:
    said = swap(host, site, image)
    assert reason in said
    assert fetch(host) == "misbehave 1\n"
    assert fetch(host, "cgi-bin/count") == "2\n"
    entry = last(host, site)
    assert (entry["result"], entry["new_image"]) == ("rolled-back", f"{image}:1")
    assert reason in entry["reason"]
    [kept] = host.json("image", "quarantine", "list")
    assert (kept["appliance"], kept["image"]) == (site, f"{image}:1")
    host.run("appliancectl", "image", "quarantine", "clear", site)
    assert host.json("image", "quarantine", "list") == []
    assert host.unit(site, "ActiveState")["ActiveState"] == "active"
    assert remains(host, site) <= CLEAN | {"./snapshots"}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("panics-early", "the image's check of the configuration failed: the guest's kernel panicked"),
        ("other-role", "its role is other/1, and test/1 is needed"),
        ("newer-data", "the data volume has format 1"),
        ("greedy", "it wants 64M of memory, not 32M; it wants to answer on 443/tcp too"),
    ],
)
def test_image_that_does_not_fit_is_refused_and_nothing_touched(
    host: Host, site: str, image: str, reason: str
) -> None:
    pid = host.unit(site, "MainPID")
    assert reason in swap(host, site, image)
    assert host.unit(site, "MainPID") == pid
    assert last(host, site)["result"] == "refused"
    assert host.json("image", "quarantine", "list") == []


def test_wishes_can_be_granted(host: Host, site: str) -> None:
    assert "swapped" in swap(host, "--accept", site, "greedy")
    assert int(host.unit(site, "MemoryMax")["MemoryMax"]) == (64 + 24) << 20


def test_configuration_is_linted_before_anything_is_stopped(host: Host, site: str) -> None:
    pid = host.unit(site, "MainPID")
    host.write("/etc/appliance/config/web/fail-check-of-2", "")
    host.run("appliancectl", "apply")
    host.wait("rest", lambda: host.json("history", site))
    assert "the image's check of the configuration failed: check failed" in swap(host, site, "misbehave:2")
    assert host.unit(site, "MainPID") == pid
    assert fetch(host) == "misbehave 1\n"


def test_damaged_image_is_noticed_before_anything_is_stopped(host: Host, site: str) -> None:
    [two] = [image for image in host.json("image", "list") if image["version"] == "2"]
    host.run("cp", "--preserve", two["path"], "/var/tmp/good")
    try:
        host.run("sh", "-c", f"printf damaged | dd of={two['path']} bs=1 seek=70000 conv=notrunc")
        assert "is damaged" in swap(host, site, "misbehave:2")
        assert fetch(host) == "misbehave 1\n"
    finally:
        host.run("cp", "--preserve", "/var/tmp/good", two["path"])
        host.run("appliancectl", "image", "verify")


def test_data_that_the_old_image_cannot_read_goes_back_with_it(host: Host, site: str) -> None:
    assert "exit status 3" in swap(host, site, "spoiler")
    assert last(host, site)["result"] == "rolled-back"
    assert fetch(host) == "misbehave 1\n"
    assert fetch(host, "cgi-bin/count") == "2\n"


def test_going_back_with_and_without_the_data(host: Host, site: str) -> None:
    assert "swapped" in swap(host, site, "misbehave:3")
    assert fetch(host, "cgi-bin/count") == "2\n"
    refused = host.try_run("appliancectl", "rollback", site)
    assert "the data volume has format 2" in refused.stderr
    assert fetch(host) == "misbehave 3\n"
    host.run("appliancectl", "rollback", "--with-data", site)
    assert fetch(host) == "misbehave 1\n"
    assert fetch(host, "cgi-bin/count") == "2\n"


def test_full_disk_during_the_snapshot(host: Host, site: str) -> None:
    """The volume holds more than is free on its file system."""
    host.run("systemctl", "stop", "appliance@web")
    place, copy = "/var/lib/appliance/appliances/web", "/var/tmp/small"
    host.run("cp", "-a", place, copy)
    host.run("mount", "-t", "tmpfs", "-o", "size=12M,mode=0750", "none", place)
    try:
        host.run("chgrp", "appliance-web", place)
        host.run("sh", "-c", f"cp -a --sparse=never {copy}/. {place}")
        host.run("systemctl", "start", "appliance@web")
        assert "No space left" in swap(host, site, "spoiler")
        assert fetch(host) == "misbehave 1\n"
        assert last(host, site)["result"] == "rolled-back"
        assert host.json("image", "quarantine", "list") == []
    finally:
        host.run("systemctl", "stop", "appliance@web")
        host.run("umount", place)
        host.run("rm", "-rf", copy)


def test_one_swap_at_a_time(host: Host, site: str) -> None:
    host.run("sed", "-i", "s/soak: 1s/soak: 20s/", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    operation = host.run("appliancectl", "swap", "--no-wait", site, "misbehave:2").strip()
    busy = host.try_run("appliancectl", "swap", site, "misbehave:3")
    assert busy.returncode == 8
    host.wait("the new image", lambda: fetch(host, check=False) == "misbehave 2\n")
    host.write("/etc/appliance/config/web/greeting", "later\n")
    applied = host.try_run("appliancectl", "apply")
    assert "web: an operation is under way" in applied.stderr
    host.run("busctl", "call", "org.appliance1", operation, "org.appliance1.Operation", "Cancel")
    host.wait("the old image", lambda: fetch(host, check=False) == "misbehave 1\n")
    host.wait("the end", lambda: host.json("history", site))
    assert (last(host, site)["result"], last(host, site)["reason"]) == ("rolled-back", "cancelled")
    assert host.json("image", "quarantine", "list") == []
    host.run("appliancectl", "apply")
    assert "later" in fetch(host, "cgi-bin/about")


def test_stop_during_a_swap(host: Host, site: str) -> None:
    host.run("sed", "-i", "s/soak: 1s/soak: 20s/", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    host.run("appliancectl", "swap", "--no-wait", site, "misbehave:2")
    host.wait("the new image", lambda: fetch(host, check=False) == "misbehave 2\n")
    host.run("systemctl", "stop", "appliance@web")
    host.wait("the end", lambda: host.json("history", site))
    assert "stopped before" in last(host, site)["reason"]
    assert host.json("image", "quarantine", "list") == []


def test_failed_rollback_ends_in_failed_and_says_so(host: Host, site: str) -> None:
    host.run("sed", "-i", "s/soak: 1s/soak: 3s/", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    host.run("appliancectl", "swap", "--no-wait", site, "misbehave:2")
    host.wait("the new image", lambda: fetch(host, check=False) == "misbehave 2\n")
    [one] = [
        image for image in host.json("image", "list") if image["version"] == "1" and image["name"] == NAME
    ]
    host.run("mv", one["path"], "/var/tmp/away")
    try:
        fetch(host, "cgi-bin/exit", check=False)
        host.wait("the end", lambda: host.json("history", site), timeout_s=60)
        assert last(host, site)["result"] == "failed"
        host.wait("failed", lambda: host.unit(site, "ActiveState")["ActiveState"] == "failed")
        assert host.appliance(site)["health"] == "failed"
        host.run("systemctl", "restart", "appliance-agent")
        assert host.try_run("systemctl", "start", "appliance@web").returncode != 0
    finally:
        host.run("mv", "/var/tmp/away", one["path"])
    host.run("appliancectl", "apply")
    host.run("systemctl", "start", "appliance@web")
    assert fetch(host) == "misbehave 1\n"


def test_vendors_interchange(host: Host, dns: str) -> None:
    host.run(
        "sh", "-c", "echo 'update: {soak: 1s}' >>/etc/appliance/appliances/dns.yaml; appliancectl apply"
    )
    for image in ("dns-knot", "dns-nsd"):
        assert "swapped" in swap(host, dns, image)
        assert ask(host) == "10.88.0.80"
        assert host.appliance(dns)["image"].startswith(image)


def test_site_moves_between_web_servers(host: Host, make: Make) -> None:
    make(
        "site",
        "image: web-nginx\nnetwork: {name: default, address: 10.88.0.80}\ndata: 16M\nupdate: {soak: 1s}\n",
    )
    host.run("systemctl", "start", "appliance@site")
    page = fetch(host)
    assert "It works" in page
    for image in ("web-lighttpd", "web-nginx"):
        assert "swapped" in swap(host, "site", image)
        assert fetch(host) == page


def test_twenty_appliances_at_once(host: Host, bad_images: None) -> None:
    names = [f"many{number}" for number in range(20)]
    for name in names:
        host.write(
            f"/etc/appliance/appliances/{name}.yaml", "image: misbehave:1\ndata: 8M\nupdate: {soak: 1s}\n"
        )
    host.run("appliancectl", "apply")
    host.run("systemctl", "start", *(f"appliance@{name}" for name in names))
    for name in names:
        host.run("appliancectl", "swap", "--no-wait", name, "misbehave:2")
    host.wait("all to end", lambda: all(host.json("history", name) for name in names), timeout_s=120)
    assert {last(host, name)["result"] for name in names} == {"committed"}
    assert {appliance["image"] for appliance in host.json("list")} == {"misbehave:2"}
    assert {appliance["health"] for appliance in host.json("list")} == {"healthy"}


@pytest.fixture
def enabled(host: Host, site: str) -> Iterator[str]:
    """The site comes back after a reboot."""
    host.run("appliancectl", "enable", site)
    yield site
    host.run("appliancectl", "disable", site)


def kill_agent(host: Host, guest: str = "0") -> None:
    pid = agent_pid(host)
    host.try_run("kill", "-KILL", pid, *([guest] if guest != "0" else []))
    host.wait("a new agent", lambda: agent_pid(host) not in {pid, "0"}, timeout_s=10)


def kill_agent_and_guest(host: Host) -> None:
    kill_agent(host, host.unit("web", "MainPID")["MainPID"])


def kill_host(host: Host) -> None:
    boot = host.run("stat", "--format=%Y", "/proc/1")
    host.try_run("systemctl", "reboot", "--force", "--force")
    host.wait("the reboot", lambda: _is_up_since(host, boot), timeout_s=60)


def _is_up_since(host: Host, boot: str) -> bool:
    now = host.try_run("stat", "--format=%Y", "/proc/1")
    running = host.try_run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}
    return now.returncode == 0 and now.stdout != boot and running


@pytest.mark.parametrize("seed", range(KILLS))
def test_death_at_any_moment_of_a_swap(host: Host, enabled: str, seed: int) -> None:
    chance = random.Random(seed)
    deaths = [kill_agent, kill_agent, kill_agent, kill_agent_and_guest, kill_agent_and_guest, kill_host]
    die = deaths[seed % len(deaths)]
    host.run("sed", "-i", "s/soak: 1s/soak: 300ms/", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    host.run("appliancectl", "swap", "--no-wait", enabled, "misbehave:2")
    time.sleep(chance.uniform(0.0, 1.0))
    die(host)
    entry = host.wait("the end", lambda: host.json("history", enabled), timeout_s=60)[-1]
    image = "misbehave 2" if entry["result"] == "committed" else "misbehave 1"
    host.wait("an answer", lambda: fetch(host, check=False) == f"{image}\n")
    host.wait("healthy", lambda: host.appliance(enabled)["health"] == "healthy")
    assert host.appliance(enabled)["image"] == image.replace(" ", ":")
    assert fetch(host, "cgi-bin/count") == "2\n"
    # A guest that somebody else kills looks like one that fails.
    assert host.json("image", "quarantine", "list") == [] or die is kill_agent_and_guest
    assert remains(host, enabled) <= CLEAN | {"./snapshots"}
    assert "check" not in host.run("ls", "/run/appliance", "/run/systemd/system")
