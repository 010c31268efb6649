"""The running guest: health and watchdog, stopping, the data volume."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.guest.uml import FOREVER, UNTIL_SIGNALLED, Boot, Guest, Plan

FAST = "health-interval-ms=50"


def _read(volume: Path, path: str) -> str:
    return subprocess.run(
        ["debugfs", "-R", f"cat {path}", volume], check=True, capture_output=True, text=True
    ).stdout


def _is_clean(volume: Path) -> bool:
    """Whether the volume was unmounted: its journal is empty, and e2fsck finds nothing."""
    features = subprocess.run(["dumpe2fs", "-h", volume], check=True, capture_output=True, text=True).stdout
    checked = subprocess.run(["e2fsck", "-n", "-f", volume], check=False, capture_output=True)
    return "needs_recovery" not in features and checked.returncode == 0


def _watchdogs_within(guest: Guest, seconds: float) -> int:
    """How many watchdog messages come in this time."""
    before = guest.watchdog_count
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        guest.pump(left)
    return guest.watchdog_count - before


def test_watchdog_is_sent_at_the_interval(boot: Boot) -> None:
    guest = boot(Plan(more=[FAST]))
    guest.wait_ready()
    assert 3 <= _watchdogs_within(guest, 0.5) <= 11


def test_watchdog_only_while_the_health_check_passes(boot: Boot) -> None:
    service = """
        while test ! -e /tmp/seen; do usleep 20000; done
        usleep 300000
        rm /tmp/sick
        sleep 1000
    """
    health = """
        test -e /tmp/sick || exit 0
        touch /tmp/seen
        echo looking
        echo zone expired
        exit 3
    """
    guest = boot(Plan(prepare="> /tmp/sick", exec=service, health=health, more=[FAST]))
    guest.wait_status("unhealthy: zone expired")
    assert guest.watchdog_count == 0
    guest.wait_until(lambda: guest.statuses[-1] == "running")
    guest.wait_until(lambda: guest.watchdog_count >= 2)
    assert "<4>unhealthy: zone expired" in guest.lines
    assert "<5>sh is healthy again" in guest.lines
    assert guest.statuses.count("unhealthy: zone expired") == 1


def test_silent_health_check_is_reported_by_its_status(boot: Boot) -> None:
    guest = boot(Plan(health="exit 3", more=[FAST]))
    guest.wait_status("unhealthy: exit status 3")


def test_missing_health_check_is_unhealthy(boot: Boot) -> None:
    guest = boot(Plan(health=["/usr/bin/missing"], more=[FAST]))
    guest.wait_status("unhealthy: cannot run /usr/bin/missing: No such file or directory")


def test_hung_health_check_is_killed(boot: Boot) -> None:
    guest = boot(Plan(health="echo asking; sleep 1000", more=[FAST, "health-timeout-ms=100"]))
    guest.wait_status("unhealthy: timed out: asking")
    assert guest.watchdog_count == 0


def test_closed_port_is_unhealthy(boot: Boot) -> None:
    service = f"prober udp 53 & usleep 400000; kill $!; {FOREVER}"
    guest = boot(Plan(exec=service, more=["ready=udp 53", FAST]))
    guest.wait_status("unhealthy: nothing is bound to port 53/udp")
    assert guest.watchdog_count > 0
    assert _watchdogs_within(guest, 0.3) == 0


def test_established_connections_do_not_hide_a_closed_port(boot: Boot) -> None:
    script = """
        httpd -f -p 80 -h / &
        server=$!
        usleep 100000
        sleep 1000 | nc 127.0.0.1 80 &
        usleep 200000
        kill -9 $server
        usleep 200000
        netstat -tn
        sleep 1000
    """
    guest = boot(Plan(exec=script, more=["ready=tcp 80", FAST]))
    guest.wait_status("unhealthy: nothing is bound to port 80/tcp")
    guest.wait_text("ESTABLISHED")


def test_a_hung_guest_is_silent(boot: Boot) -> None:
    guest = boot(Plan(more=[FAST]))
    guest.wait_ready()
    guest.command("stop")
    assert _watchdogs_within(guest, 0.3) <= 1
    guest.command("go")
    guest.wait_until(lambda: guest.watchdog_count >= 3)


def test_service_notifications_become_the_status(boot: Boot) -> None:
    script = """
        prober send $NOTIFY_SOCKET READY=1
        usleep 200000
        prober send $NOTIFY_SOCKET 'STATUS=7 zones'
        sleep 1000
    """
    guest = boot(Plan(exec=script, more=["ready=notify"]))
    guest.wait_status("7 zones")


def test_orphans_are_reaped(boot: Boot) -> None:
    orphans = "for i in 1 2 3 4 5; do (usleep 1000 &) ; done; usleep 300000"
    count = "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"
    guest = boot(Plan(exec=f"{orphans}; echo zombies $({count}); {FOREVER}"))
    guest.wait_text("zombies ")
    guest.wait_line("zombies 0")


def test_clean_stop_lets_the_service_finish(boot: Boot, data: Path) -> None:
    service = "trap 'echo finished > /data/done; echo bye; exit 0' TERM; echo up;" + UNTIL_SIGNALLED
    guest = boot(Plan(exec=service, more=["data=/data"]), data=data)
    guest.wait_line("up")
    assert guest.stop() == 0
    assert "STOPPING=1\nSTATUS=stopping sh" in guest.datagrams
    assert "bye" in guest.lines
    assert "<6>sh stopped (exit status 0)" in guest.lines
    assert _read(data, "/done") == "finished\n"
    assert _is_clean(data)


def test_stop_uses_the_signal_of_the_plan(boot: Boot) -> None:
    service = "trap 'echo quit; exit 0' QUIT; echo up;" + UNTIL_SIGNALLED
    guest = boot(Plan(exec=service, more=[f"stop-signal={int(signal.SIGQUIT)}"]))
    guest.wait_line("up")
    assert guest.stop() == 0
    assert "quit" in guest.lines


def test_stop_kills_after_the_timeout(boot: Boot, data: Path) -> None:
    service = "trap '' TERM; echo precious > /data/x; echo up;" + UNTIL_SIGNALLED
    guest = boot(Plan(exec=service, more=["data=/data", "stop-timeout-ms=200"]), data=data)
    guest.wait_line("up")
    began = time.monotonic()
    assert guest.stop() == 0
    assert 0.2 <= time.monotonic() - began < 2
    assert "<4>sh did not stop within 200 ms after signal 15, killing it" in guest.lines
    assert _read(data, "/x") == "precious\n"
    assert _is_clean(data)


def test_stop_reaches_a_suspended_service(boot: Boot) -> None:
    service = "trap 'echo bye; exit 0' TERM; (kill -STOP $$; echo suspended) &" + UNTIL_SIGNALLED
    guest = boot(Plan(exec=service))
    guest.wait_line("suspended")
    assert guest.stop() == 0
    assert "bye" in guest.lines


def test_stop_while_preparing(boot: Boot, data: Path) -> None:
    guest = boot(Plan(prepare="echo busy; sleep 1000", more=["data=/data"]), data=data)
    guest.wait_line("busy")
    assert guest.stop() == 0
    assert _is_clean(data)


def test_leftover_processes_do_not_keep_the_data_volume(boot: Boot, data: Path) -> None:
    script = """
        {
            trap '' TERM HUP
            cd /data
            while :; do echo line; usleep 10000; done > log
        } &
        echo up
        sleep 1000
    """
    guest = boot(Plan(exec=script, more=["data=/data"]), data=data)
    guest.wait_line("up")
    assert guest.stop() == 0
    assert _is_clean(data)


def test_data_survives_the_next_boot(boot: Boot, data: Path) -> None:
    first = boot(Plan(exec=f"echo kept > /data/x; echo written; {FOREVER}", more=["data=/data"]), data=data)
    first.wait_line("written")
    assert first.stop() == 0
    second = boot(Plan(exec=f"cat /data/x; {FOREVER}", more=["data=/data"]), data=data)
    second.wait_line("kept")
