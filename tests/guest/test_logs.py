"""Console and syslog: what reaches the journal, and with which priority."""

from __future__ import annotations

import os
import time

from tests.guest.uml import FOREVER, Boot, Guest, Plan


def test_output_of_the_service_is_unchanged(boot: Boot) -> None:
    guest = boot(Plan(exec=f"printf 'plain\\n<4>warned\\n\\ttabbed\\033[0m\\n'; echo error >&2; {FOREVER}"))
    guest.wait_line("error")
    assert b"plain\n<4>warned\n\ttabbed\x1b[0m\nerror\n" in guest.output
    assert b"\r" not in guest.output


def test_unprivileged_processes_may_log(boot: Boot) -> None:
    guest = boot(Plan(exec=f"prober as 123 /run/appliance/bin/logger -t worker hello; {FOREVER}"))
    guest.wait_text("worker: hello")


def test_syslog_priorities(boot: Boot) -> None:
    script = """
        for priority in daemon.err local0.info kern.emerg local7.debug; do
            logger -p $priority -t nsd message ${priority#*.}
        done
        sleep 1000
    """
    guest = boot(Plan(exec=script))
    guest.wait_line("<7>nsd: message debug")
    assert {"<3>nsd: message err", "<6>nsd: message info", "<0>nsd: message emerg"} <= set(guest.lines)


def test_syslog_of_prepare_is_seen(boot: Boot) -> None:
    guest = boot(Plan(prepare="logger -p daemon.notice -t prepare two zones", exec=f"echo up; {FOREVER}"))
    guest.wait_line("<5>prepare: two zones")


def test_log_flood_waits_for_the_reader_and_loses_nothing(boot: Boot) -> None:
    script = """
        i=0
        while test $i -lt 2000; do
            set --
            for j in 0 1 2 3 4 5 6 7; do
                set -- "$@" "<30>Jan  1 00:00:00 flood[7]: $((i + j)) $PAD"
            done
            prober send /dev/log "$@"
            i=$((i + 8))
        done
        echo flooded
        sleep 1000
    """
    pad = "x" * 100
    guest = boot(Plan(exec=script, more=["health-interval-ms=50", f"environment=PAD={pad}"]))
    guest.wait_ready()
    _read_notifications_only(guest, 1.5)
    assert guest.watchdog_count > 10
    guest.wait_line("flooded")
    guest.wait_text("flood[7]: 1999 ")
    lines = [line for line in guest.lines if "flood[7]" in line]
    assert lines == [f"<6>flood[7]: {i} {pad}" for i in range(2000)]
    assert "lost" not in guest.text


def _read_notifications_only(guest: Guest, seconds: float) -> None:
    """Meanwhile the console fills up."""
    deadline = time.monotonic() + seconds
    guest.notify.settimeout(seconds)
    while time.monotonic() < deadline:
        guest.datagrams.append(guest.notify.recv(65536).decode())


def test_broken_console_does_not_stop_the_guest(boot: Boot) -> None:
    script = f"usleep 300000; logger -t nsd unheard; echo unheard; {FOREVER}"
    guest = boot(Plan(exec=script, more=["health-interval-ms=50"]))
    guest.wait_ready()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, guest.console)
    os.close(null)
    seen = guest.watchdog_count
    _read_notifications_only(guest, 1.0)
    assert guest.watchdog_count >= seen + 10
