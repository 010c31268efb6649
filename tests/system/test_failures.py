"""What goes wrong in guests, and what must happen: noticed, explained, and mended by systemd; nobody else
concerned."""

from __future__ import annotations

import pytest

from tests.system.conftest import Make
from tests.system.lab import Host
from tests.system.test_first_appliance import ask, fetch


def wait_for_new_guest(host: Host, name: str, old_pid: str) -> None:
    def renewed() -> bool:
        unit = host.unit(name, "MainPID", "ActiveState")
        return unit["ActiveState"] == "active" and unit["MainPID"] not in {old_pid, "0"}

    host.wait("a new guest", renewed)


def kill_init(host: Host) -> None:
    """The host process that runs the guest's PID 1 is the oldest child of the guest's kernel."""
    pid = host.unit("web", "MainPID")["MainPID"]
    oldest = host.run("pgrep", "--parent", pid, "--oldest").strip()
    host.run("kill", "-KILL", oldest)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "busybox ended"),
        ("panic", "the guest's kernel panicked"),
        ("kill init", "the guest's kernel panicked"),
        ("hang", "the guest gave no sign of life"),
        ("kill", "the guest was killed by SIGKILL"),
    ],
)
def test_dead_guest_is_noticed_explained_and_started_again(
    host: Host, web: str, fault: str, reason: str
) -> None:
    cursor = host.cursor()
    pid = host.unit(web, "MainPID")["MainPID"]
    if fault == "kill init":
        kill_init(host)
    elif fault == "hang":
        host.mconsole(web, "stop")
    elif fault == "kill":
        host.run("kill", "-KILL", pid)
    else:
        fetch(host, f"cgi-bin/{fault}", check=False)
    wait_for_new_guest(host, web, pid)
    host.wait("the service", lambda: fetch(host, check=False) == "misbehave 1\n")
    host.wait_health(web, "healthy")
    failures = [text for text in host.messages(web, since=cursor) if text.startswith("Appliance web failed")]
    assert len(failures) == 1
    assert reason in failures[0]


def test_watchdog_ends_an_unhealthy_guest(host: Host, web: str) -> None:
    cursor = host.cursor()
    pid = host.unit(web, "MainPID")["MainPID"]
    fetch(host, "cgi-bin/unhealthy")
    assert host.wait_health(web, "degraded")["reason"] == "out of order"
    wait_for_new_guest(host, web, pid)
    host.wait_health(web, "healthy")
    assert any(
        "no sign of life" in text and "out of order" in text for text in host.messages(web, since=cursor)
    )


def test_short_illness_is_survived(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    fetch(host, "cgi-bin/unhealthy")
    host.wait_health(web, "degraded")
    fetch(host, "cgi-bin/healthy")
    host.wait_health(web, "healthy")
    assert host.unit(web, "MainPID") == pid


def test_crash_loop_ends_in_failed(host: Host, make: Make) -> None:
    make("loop", "image: crasher\n")
    assert host.try_run("systemctl", "start", "appliance@loop").returncode != 0
    host.wait("failed", lambda: host.unit("loop", "ActiveState")["ActiveState"] == "failed")
    state = host.wait_health("loop", "failed")
    assert "ended" in state["reason"]
    assert host.try_run("systemctl", "is-failed", "appliance@loop").stdout.strip() == "failed"


@pytest.mark.parametrize(("step", "reason"), [("prepare", "prepare"), ("check", "check")])
def test_failing_step_says_which(host: Host, make: Make, step: str, reason: str) -> None:
    make("web", "image: misbehave:1\n", **{f"fail_{step}": "", "greeting": ""})
    assert host.try_run("systemctl", "start", "appliance@web").returncode != 0
    assert reason in host.wait_health("web", "failed")["reason"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_bad_image_fails_one_unit_with_one_clear_line(host: Host, dns: str, web: str, damage: str) -> None:
    digest = host.appliance(web)["digest"].removeprefix("sha256:")
    image = f"/var/lib/appliance/images/sha256-{digest}/image.squashfs"
    host.run("systemctl", "stop", "appliance@web")
    host.run("cp", "--preserve", image, "/var/tmp/good")
    damages = {
        "missing": ["rm", "-f", image],
        "truncated": ["truncate", "--size=-4096", image],
        # One byte in the middle, and the times set back as if nothing had happened.
        "altered": [
            "sh",
            "-c",
            f"printf damaged | dd of={image} bs=1 seek=70000 conv=notrunc; touch -r /var/tmp/good {image}",
        ],
    }
    cursor = host.cursor()
    try:
        host.run(*damages[damage])
        assert host.try_run("systemctl", "start", "appliance@web").returncode != 0
        lines = [text for text in host.messages(web, since=cursor) if text.startswith("Cannot start: ")]
        assert len(lines) == 1
        assert ("No such file" if damage == "missing" else "damaged") in lines[0]
        unit = host.unit(web, "ActiveState", "NRestarts")
        assert unit == {"ActiveState": "failed", "NRestarts": "0"}
        assert ask(host) == "10.88.0.80"
    finally:
        host.run("cp", "--preserve", "/var/tmp/good", image)
    host.run("systemctl", "start", "appliance@web")
    assert fetch(host) == "misbehave 1\n"


def test_image_that_is_not_in_the_store(host: Host, web: str) -> None:
    host.write("/etc/appliance/appliances/other.yaml", "image: nowhere:1\n")
    applied = host.try_run("appliancectl", "apply")
    assert applied.returncode == 1
    assert "nowhere:1" in applied.stderr
    cursor = host.cursor()
    assert host.try_run("systemctl", "start", "appliance@other").returncode != 0
    assert any("nowhere:1" in text for text in host.messages("other", since=cursor))
    assert fetch(host) == "misbehave 1\n"


def test_kernel_that_cannot_run_guests_is_refused_by_name(host: Host, make: Make) -> None:
    host.write("/etc/appliance/appliances/other.yaml", "image: misbehave:1\nkernel: /bin/true\n")
    applied = host.try_run("appliancectl", "apply")
    assert "kernel /bin/true is not a User-Mode Linux kernel" in applied.stderr
    assert host.try_run("systemctl", "start", "appliance@other").returncode != 0


def test_stopping_lets_the_service_end_and_keeps_data(host: Host, web: str) -> None:
    fetch(host, "cgi-bin/count")
    host.run("systemctl", "stop", "appliance@web")
    assert host.unit(web, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    volume = "/var/lib/appliance/appliances/web/data.img"
    assert "clean" in host.run("e2fsck", "-n", volume)
    assert host.appliance(web)["health"] == "stopped"
