"""The agent itself: what it applies, what it leaves alone, and that appliances do not need it to live."""

from __future__ import annotations

import re

from tests.system.conftest import Make
from tests.system.lab import Host
from tests.system.test_first_appliance import ask, fetch


def agent_pid(host: Host) -> str:
    return host.run("systemctl", "show", "--property=MainPID", "--value", "appliance-agent").strip()


def query_steadily(host: Host, seconds: int) -> str:
    host.write("/var/tmp/queries", "www.example.test A\n")
    return f"dnsperf -s 10.88.0.53 -d /var/tmp/queries -c 1 -Q 500 -l {seconds} -t 2"


def lost_queries(report: str) -> tuple[int, int]:
    sent, lost = (re.search(rf"Queries {word}:\s+(\d+)", report) for word in ("sent", "lost"))
    assert sent, report
    assert lost, report
    return int(sent[1]), int(lost[1])


def test_agent_dies_and_nobody_notices(host: Host, dns: str, web: str) -> None:
    load = host.start("sh", "-c", query_steadily(host, 6))
    pid = agent_pid(host)
    host.run("kill", "-KILL", pid)
    # It is back, and knows again what runs, while queries go on.
    host.wait("a new agent", lambda: agent_pid(host) not in {pid, "0"}, timeout_s=10)
    state = host.wait_health(dns, "healthy", timeout_s=10)
    host.run("systemctl", "restart", "appliance-agent")
    assert host.appliance(web)["health"] == "healthy"
    report, _ = load.communicate(timeout=60)
    sent, lost = lost_queries(report)
    assert sent >= 2500
    assert lost == 0
    assert state["restarts"] == 0


def test_new_agent_sees_what_happened_meanwhile(host: Host, web: str) -> None:
    host.run("systemctl", "stop", "appliance-agent")
    host.run("systemctl", "stop", "appliance@web")
    host.run("systemctl", "start", "appliance-agent")
    assert host.appliance(web)["health"] == "stopped"


def test_links_taken_away_are_put_back(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")["MainPID"]
    host.run("ip", "link", "del", "br-default")
    host.wait("the bridge", lambda: fetch(host, check=False) == "misbehave 1\n", timeout_s=10)
    assert host.unit(web, "MainPID")["MainPID"] == pid
    host.run("ip", "link", "del", "ap-web")
    host.wait("the tap", lambda: host.unit(web, "MainPID")["MainPID"] not in {pid, "0"}, timeout_s=10)
    host.wait("the guest", lambda: fetch(host, check=False) == "misbehave 1\n", timeout_s=10)
    assert any("Network restored" in entry["MESSAGE"] for entry in host.journal("--unit=appliance-agent"))


def test_tap_lost_while_the_agent_was_away(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")["MainPID"]
    host.run("systemctl", "stop", "appliance-agent")
    host.run("ip", "link", "del", "ap-web")
    host.run("systemctl", "start", "appliance-agent")
    host.wait("a new guest", lambda: host.unit(web, "MainPID")["MainPID"] not in {pid, "0"}, timeout_s=10)
    host.wait("the guest", lambda: fetch(host, check=False) == "misbehave 1\n", timeout_s=10)


def test_broken_configuration_does_not_cost_the_appliances(host: Host, web: str) -> None:
    host.run("systemctl", "stop", "appliance@web", "appliance-agent")
    host.write("/etc/appliance/appliances/bad.yaml", "image: [\n")
    # As after a reboot: nothing is left in /run, and the configuration is broken.
    host.run("sh", "-c", "rm -rf /run/appliance/web; ip link del ap-web")
    host.run("systemctl", "start", "appliance-agent")
    host.run("systemctl", "start", "appliance@web")
    assert fetch(host) == "misbehave 1\n"


def test_foreign_links_are_left_alone(host: Host, make: Make) -> None:
    host.run("ip", "link", "add", "ap-mine", "type", "bridge")
    try:
        host.write("/etc/appliance/appliances/mine.yaml", "image: misbehave:1\n")
        refused = host.try_run("appliancectl", "apply")
        assert refused.returncode == 1
        assert "ap-mine exists and was not made by the agent" in refused.stderr
        assert "bridge" in host.run("ip", "-details", "link", "show", "ap-mine")
    finally:
        host.run("ip", "link", "del", "ap-mine")


def test_applying_touches_only_what_changed(host: Host, make: Make, web: str) -> None:
    make("other", "image: misbehave:1\n")
    host.run("systemctl", "start", "appliance@other")
    untouched = host.unit(web, "MainPID")
    touched = host.unit("other", "MainPID")
    host.write("/etc/appliance/appliances/other.yaml", "image: misbehave:1\nmemory: 40M\n")
    dry = host.run("appliancectl", "apply", "--dry-run")
    assert "would restart with its new configuration (other)" in dry
    assert host.unit("other", "MainPID") == touched
    assert "other: runs with its new configuration" in host.run("appliancectl", "apply")
    assert host.unit(web, "MainPID") == untouched
    assert host.unit("other", "MainPID") != touched
    assert host.run("appliancectl", "apply") == "Nothing to change.\n"
    assert host.json("history", "other")[-1]["result"] == "committed"


def test_reload_applies_and_reports_errors(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    host.write("/etc/appliance/appliances/new.yaml", "image: misbehave:1\n")
    host.run("systemctl", "reload", "appliance-agent")
    assert {appliance["name"] for appliance in host.json("list")} == {"new", "web"}
    host.write("/etc/appliance/appliances/new.yaml", "image: misbehave:1\nbogus: 1\n")
    assert host.try_run("systemctl", "reload", "appliance-agent").returncode != 0
    assert any(
        "new.yaml:2:1: “bogus” is not a known key" in entry["MESSAGE"]
        for entry in host.journal("--unit=appliance-agent")
    )
    assert host.unit(web, "MainPID") == pid


def test_every_error_at_once_and_nothing_touched(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    host.write(
        "/etc/appliance/appliances/bad.yaml",
        "image: [1]\nmemory: much\nnetwork: {name: default, address: 10.88.0.80}\n",
    )
    host.write("/etc/appliance/appliances/Worse.yaml", "image: x\n")
    host.write("/etc/appliance/appliances/worst.yaml", "image: {x\n")
    refused = host.try_run("appliancectl", "apply")
    assert refused.returncode == 3
    for expected in (
        "bad.yaml:1:8: image: text expected, found a list",
        "bad.yaml:2:9: memory: a size such as 48M expected",
        "10.88.0.80 is given to",
        "“Worse” is no appliance name",
        "worst.yaml:2:1: ",
    ):
        assert expected in refused.stderr
    assert host.try_run("appliancectl", "check").returncode == 3
    assert host.unit(web, "MainPID") == pid
    assert fetch(host) == "misbehave 1\n"


def test_removed_appliance_is_stopped_and_keeps_its_data(host: Host, web: str) -> None:
    host.run("rm", "/etc/appliance/appliances/web.yaml")
    host.run("appliancectl", "apply")
    assert host.json("list") == []
    assert host.unit(web, "ActiveState")["ActiveState"] == "inactive"
    assert host.try_run("ip", "link", "show", "ap-web").returncode != 0
    assert (
        host.try_run(
            "test", "-e", "/etc/systemd/system/appliance@web.service.d/50-appliance.conf"
        ).returncode
        != 0
    )
    assert host.try_run("test", "-s", "/var/lib/appliance/appliances/web/data.img").returncode == 0


def test_enabled_appliances_come_back_after_a_reboot(host: Host, dns: str) -> None:
    host.run("appliancectl", "enable", dns)
    try:
        boot = host.run("cat", "/proc/sys/kernel/random/boot_id") + host.run(
            "stat", "--format=%Y", "/proc/1"
        )
        host.try_run("systemctl", "reboot")
        host.wait("the reboot", lambda: _booted_since(host, boot), timeout_s=60)
        host.wait_health(dns, "healthy", timeout_s=60)
        assert ask(host) == "10.88.0.80"
    finally:
        host.run("appliancectl", "disable", dns)


def _booted_since(host: Host, boot: str) -> bool:
    now = host.try_run("sh", "-c", "cat /proc/sys/kernel/random/boot_id; stat --format=%Y /proc/1")
    running = host.try_run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}
    return now.returncode == 0 and now.stdout != boot and running


def test_agent_sandbox_and_memory_are_modest(host: Host) -> None:
    status = host.run("cat", f"/proc/{agent_pid(host)}/status")
    bounding = re.search(r"^CapBnd:\t([0-9a-f]+)$", status, re.MULTILINE)
    assert bounding
    # CAP_CHOWN 0, CAP_DAC_READ_SEARCH 2, CAP_FOWNER 3, CAP_NET_ADMIN 12
    assert int(bounding[1], 16) == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12
