"""New configuration files for a guest that goes on running: what reaches the service, and what happens when
something of it fails."""

from __future__ import annotations

import random
import stat

import pytest

from agent.plan.cpio import archive
from tests.guest.uml import (
    FOREVER,
    SHELL,
    TRAILER,
    UNTIL_SIGNALLED,
    Boot,
    Guest,
    Plan,
    archive_entry,
    configuration_archive,
)

HUP = "reload-signal=1"
FAST = "health-interval-ms=50"
# What prepare and the service of LISTENING say has the value of the file that both read.
RENDER = (
    "cp /run/appliance/config/value /run/appliance/rendered; echo prepared $(cat /run/appliance/rendered)"
)
LISTENING = f"trap 'echo told $(cat /run/appliance/rendered)' HUP; echo up; {UNTIL_SIGNALLED}"
OLD = {"value": b"old\n"}
NEW = {"value": b"new\n"}


def _with_scripts(plan: Plan, files: dict[str, bytes]) -> dict[str, bytes]:
    """The scripts of a plan lie among the files, so a new set has to have them as well."""
    return {**files, **plan.scripts}


def _up(boot: Boot, plan: Plan, files: dict[str, bytes] | None = None) -> Guest:
    guest = boot(plan, config=OLD if files is None else files)
    guest.wait_ready()
    guest.wait_line("up")
    return guest


def _of_service(lines: list[str]) -> list[str]:
    """Without what the runtime says, which comes at any time."""
    return [line for line in lines if not line.startswith("<")]


def _wait_for(guest: Guest, text: str, *, times: int) -> None:
    guest.wait_until(lambda: guest.text.count(text) == times)


LIST = "cd /run/appliance/config; find . -type f ! -path './.scripts/*' -exec grep -H . {} + | sort"


def test_changed_new_and_removed_files(boot: Boot) -> None:
    service = f"trap 'echo told; ({LIST}); echo listed' HUP; echo up; {UNTIL_SIGNALLED}"
    plan = Plan(exec=service, more=[HUP])
    guest = _up(boot, plan, {"kept": b"k", "changed": b"1", "gone": b"g", "deep/er/gone": b"g"})
    new = {"kept": b"k", "changed": b"2", "deep/new": b"n", "very/deep/new": b"n", "empty": b""}
    assert guest.reload(_with_scripts(plan, new)) == "running"
    guest.wait_line("listed")
    told = _of_service(guest.lines[guest.lines.index("told") + 1 : guest.lines.index("listed")])
    assert told == ["./changed:2", "./deep/new:n", "./kept:k", "./very/deep/new:n"]
    assert guest.datagrams.count("RELOADING=1\nSTATUS=reloading: preparing") == 1
    assert guest.datagrams[-1] == "READY=1\nSTATUS=running"
    assert any("reloaded in" in line for line in guest.lines)
    assert guest.stop() == 0


def test_files_are_as_at_the_start(boot: Boot) -> None:
    """Read-only, of root, readable by everybody, at one mount and not at ever more of them."""
    look = (
        'cd /run/appliance/config; stat -c "%n %a %u:%g" . deep deep/file;'
        ' (: >value) 2>/dev/null || echo read-only; grep -c " /run/appliance/config " /proc/self/mounts'
    )
    service = f"({look}); trap '({look})' HUP; echo up; {UNTIL_SIGNALLED}"
    plan = Plan(exec=service, more=[HUP])
    files = {"deep/file": b"x", "value": b"x"}
    guest = _up(boot, plan, files)
    first = _of_service(guest.lines[: guest.lines.index("up")])
    assert first[-5:] == [". 755 0:0", "deep 755 0:0", "deep/file 644 0:0", "read-only", "1"]
    for _ in range(3):
        assert guest.reload(_with_scripts(plan, files)) == "running"
    guest.wait_until(lambda: guest.lines.count("read-only") == 4)
    guest.wait_until(lambda: guest.lines.count("1") == 4)
    for line in first[-5:]:
        assert guest.lines.count(line) == 4, guest.describe()


def test_open_files_stay_valid(boot: Boot) -> None:
    service = """
        exec 3</run/appliance/config/value
        trap 'cat <&3; cat /run/appliance/config/value; echo read' HUP
        echo up
    """
    plan = Plan(exec=service + UNTIL_SIGNALLED, more=[HUP])
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "running"
    guest.wait_line("read")
    told = guest.lines[guest.lines.index("up") + 1 : guest.lines.index("read")]
    assert _of_service(told) == ["old", "new"]


def test_readers_find_files_at_every_moment(boot: Boot) -> None:
    reading = """
        trap 'told=1' HUP
        (while :; do read value </run/appliance/config/value || echo missing; done) &
        echo up
    """
    plan = Plan(exec=reading + UNTIL_SIGNALLED, more=[HUP])
    guest = _up(boot, plan)
    for content in (NEW, OLD, NEW, OLD, NEW):
        assert guest.reload(_with_scripts(plan, content)) == "running"
    assert "missing" not in guest.text
    assert "nonexistent" not in guest.text


def test_memory_of_old_files_is_given_back(boot: Boot) -> None:
    # Those of the start are on a ramfs, whose pages are unevictable, later ones on a tmpfs.
    big = {"big": random.Random(1).randbytes(4 << 20)}
    count = 'set -- $(grep -E "^(Unevictable|Shmem):" /proc/meminfo); echo used $(($2 + $5))'
    plan = Plan(exec=f"{count}; trap '{count}' HUP; echo up; {UNTIL_SIGNALLED}", more=[HUP])
    guest = _up(boot, plan, big)
    for files, times in ((big, 2), (big, 3), (big, 4), ({}, 5), ({}, 6)):
        assert guest.reload(_with_scripts(plan, files)) == "running"
        _wait_for(guest, "used ", times=times)
    used_kb = [int(line.split()[1]) for line in guest.lines if line.startswith("used ")]
    assert max(used_kb[:5]) < 4096 + 4096 + 1024, used_kb
    assert used_kb[-1] < 1024, used_kb


def test_prepare_and_check_run_before_the_service_is_told(boot: Boot) -> None:
    plan = Plan(prepare=RENDER, check="echo checked", exec=LISTENING, more=[HUP])
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "running"
    guest.wait_line("told new")
    told = [line for line in guest.lines[guest.lines.index("up") :] if not line.startswith("<")]
    assert told == ["up", "prepared new", "checked", "told new"]
    begun = guest.datagrams.index("RELOADING=1\nSTATUS=reloading: preparing")
    assert [text for text in guest.datagrams[begun:] if text != "WATCHDOG=1"] == [
        "RELOADING=1\nSTATUS=reloading: preparing",
        "STATUS=reloading: checking configuration",
        "STATUS=reloading: sh",
        "READY=1\nSTATUS=running",
    ]


def test_a_command_can_tell_the_service(boot: Boot) -> None:
    plan = Plan(exec=f"echo up; {FOREVER}", reload="echo telling of $(cat /run/appliance/config/value)")
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "running"
    assert "telling of new" in guest.lines


def test_the_status_of_the_service_stands_again_afterwards(boot: Boot) -> None:
    service = "prober send $NOTIFY_SOCKET 'READY=1\\nSTATUS=7 zones'; trap 'told=1' HUP; echo up;"
    plan = Plan(exec=service + UNTIL_SIGNALLED, more=[HUP, "ready=notify"])
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "7 zones"


def test_without_reload_in_the_plan_it_is_no_configuration(boot: Boot) -> None:
    plan = Plan(exec=f"echo up; {FOREVER}", more=[FAST])
    guest = _up(boot, plan)
    guest.deliver(_with_scripts(plan, NEW))
    guest.wait_line("<3>names: the archive begins with something else: appliance")
    seen = guest.watchdog_count
    guest.wait_until(lambda: guest.watchdog_count >= seen + 5)
    assert guest.reloads == 0
    guest.withdraw()
    assert guest.stop() == 0


# --- the service must answer ----------------------------------------------------------------------------


def test_the_reload_ends_when_the_ports_are_bound_again(boot: Boot) -> None:
    service = """
        trap 'kill $!; usleep 300000; echo bound; prober udp 53 &' HUP
        prober udp 53 &
        echo up
    """
    plan = Plan(exec=service + UNTIL_SIGNALLED, more=[HUP, "ready=udp 53"])
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "running"
    guest.wait_line("bound")


def test_the_reload_ends_with_a_health_check_that_passes(boot: Boot) -> None:
    plan = Plan(
        exec="echo up; while :; do usleep 300000; test ! -e /tmp/sick || { rm /tmp/sick; echo well; }; done",
        health="test ! -e /tmp/sick || { echo still loading; exit 1; }",
        reload="> /tmp/sick",
    )
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "running"
    assert "well" in guest.lines
    assert not any(status.startswith("unhealthy") for status in guest.statuses)


def test_a_service_that_does_not_answer_again_gets_its_old_files(boot: Boot) -> None:
    health = "grep -q old /run/appliance/rendered || { echo no such value; exit 1; }"
    plan = Plan(prepare=RENDER, exec=LISTENING, health=health, more=[HUP, FAST, "ready-timeout-ms=700"])
    guest = _up(boot, plan)
    reason = "sh did not answer as it should: no such value"
    assert guest.reload(_with_scripts(plan, NEW)) == f"reload failed: {reason}"
    assert f"<3>reload failed: {reason}" in guest.lines
    guest.wait_line("told old")
    told = [line for line in guest.lines[guest.lines.index("up") :] if not line.startswith("<")]
    assert told == ["up", "prepared new", "told new", "prepared old", "told old"]
    seen = guest.watchdog_count
    guest.wait_until(lambda: guest.watchdog_count >= seen + 3)
    assert guest.statuses[-1] == f"reload failed: {reason}"


# --- failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "check", "reason"),
    [
        ("grep -q old value || { echo no zones; exit 2; }", "", "prepare failed: no zones"),
        ("", "grep -q old value || { echo line 3; exit 1; }", "check failed: line 3"),
        ("grep -q old value || sleep 1000", "", "prepare failed: timed out: prepared new"),
        ("", "grep -q old value || { echo thinking; sleep 1000; }", "check failed: timed out: thinking"),
    ],
)
def test_the_service_goes_on_with_its_old_files(boot: Boot, prepare: str, check: str, reason: str) -> None:
    plan = Plan(
        prepare=f"{RENDER}; cd /run/appliance/config; {prepare}",
        check=f"cd /run/appliance/config; {check}",
        exec=LISTENING,
        more=[HUP, "ready-timeout-ms=700"],
    )
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == f"reload failed: {reason}"
    assert f"<3>reload failed: {reason}" in guest.lines
    said = [line for line in guest.lines[guest.lines.index("up") :] if line.startswith(("prepared", "told"))]
    assert said == ["prepared new", "prepared old"]
    # And the next ones are as if nothing had been.
    assert guest.reload(_with_scripts(plan, {"value": b"new but old\n"})) == "running"
    guest.wait_line("told new but old")
    assert guest.stop() == 0


def test_a_command_that_fails_is_run_again_with_the_old_files(boot: Boot) -> None:
    tell = "value=$(cat /run/appliance/rendered); echo telling of $value; test $value = old"
    plan = Plan(prepare=RENDER, exec=f"echo up; {FOREVER}", reload=tell)
    guest = _up(boot, plan)
    reason = "the command to reload failed: telling of new"
    assert guest.reload(_with_scripts(plan, NEW)) == f"reload failed: {reason}"
    assert [line for line in guest.lines if line.startswith("telling")] == [
        "telling of new",
        "telling of old",
    ]


def test_a_way_back_that_fails_leaves_the_service_running(boot: Boot) -> None:
    plan = Plan(
        prepare="test ! -e /tmp/seen || { echo broken; exit 1; }; > /tmp/seen", exec=LISTENING, more=[HUP]
    )
    guest = _up(boot, plan)
    assert guest.reload(_with_scripts(plan, NEW)) == "reload failed: prepare failed: broken"
    assert "<3>back at the old configuration, but prepare failed: broken" in guest.lines
    assert guest.stop() == 0


def test_a_service_that_dies_of_a_reload_ends_the_guest(boot: Boot) -> None:
    service = f"echo $$ >/tmp/pid; trap 'exit 3' HUP; echo up; {UNTIL_SIGNALLED}"
    plan = Plan(exec=service, reload="kill -HUP $(cat /tmp/pid); sleep 1000")
    guest = _up(boot, plan)
    guest.deliver(_with_scripts(plan, NEW))
    assert guest.wait_end() == 87
    assert guest.statuses[-1] == "sh ended during a reload: exit status 3"


def test_a_stop_wins(boot: Boot) -> None:
    service = f"trap 'echo bye; exit 0' TERM; echo up; {UNTIL_SIGNALLED}"
    prepare = "grep -q old /run/appliance/config/value || { echo busy; sleep 1000; }"
    plan = Plan(prepare=prepare, exec=service, more=[HUP])
    guest = _up(boot, plan)
    guest.deliver(_with_scripts(plan, NEW))
    guest.wait_line("busy")
    assert guest.stop() == 0
    assert "bye" in guest.lines
    assert "<6>sh stopped (exit status 0)" in guest.lines
    assert guest.outcome == ""


def test_the_watchdog_goes_on(boot: Boot) -> None:
    prepare = "grep -q old /run/appliance/config/value || { echo busy; usleep 600000; }"
    plan = Plan(prepare=prepare, exec=LISTENING, health="exit 0", more=[HUP, FAST])
    guest = _up(boot, plan)
    guest.deliver(_with_scripts(plan, NEW))
    guest.wait_line("busy")
    before = guest.watchdog_count
    guest.wait_until(lambda: guest.outcome != "")
    assert guest.watchdog_count - before >= 5
    assert guest.outcome == "running"


def test_a_disk_that_comes_during_a_reload_is_taken_afterwards(boot: Boot) -> None:
    prepare = f"{RENDER}; grep -q new /run/appliance/rendered && usleep 300000; :"
    plan = Plan(prepare=prepare, exec=LISTENING, more=[HUP])
    guest = _up(boot, plan)
    guest.deliver(_with_scripts(plan, NEW))
    guest.wait_line("prepared new")
    guest.withdraw()
    guest.deliver(_with_scripts(plan, {"value": b"newest\n"}))
    guest.wait_line("told newest")
    guest.wait_until(lambda: guest.reloads == 2 and guest.outcome == "running")


def test_a_disk_that_comes_before_the_service_is_ready_waits(boot: Boot) -> None:
    service = f"(usleep 500000; > /tmp/go) & {LISTENING}"
    plan = Plan(prepare=RENDER, exec=service, ready_exec="test -e /tmp/go", more=[HUP, "ready=exec"])
    guest = boot(plan, config=OLD)
    guest.wait_line("up")
    guest.deliver(_with_scripts(plan, NEW))
    guest.wait_ready()
    guest.wait_line("told new")
    assert "prepared old" in guest.lines


# --- archives that no host makes ------------------------------------------------------------------------


LINK = stat.S_IFLNK | 0o777


@pytest.fixture
def idle(boot: Boot) -> Guest:
    """A guest of which nothing is to be written outside of its configuration."""
    plan = Plan(exec=[SHELL, "-c", f"trap : HUP; echo up; {UNTIL_SIGNALLED}"], more=[HUP])
    return _up(boot, plan)


NOT_ALLOWED = "the new configuration has a file that is not allowed: "
NO_FILE = "the new configuration has something that is no file: "


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the archive is cut short"),
        (bytes(512), "the archive is damaged"),
        (b"not an archive", "the archive is damaged"),
        (archive_entry("appliance/config/a"), "the archive is damaged"),
        (archive_entry("appliance/config/../../up") + TRAILER, f"{NOT_ALLOWED}appliance/config/../../up"),
        (archive_entry("appliance/config//tmp/x") + TRAILER, f"{NOT_ALLOWED}appliance/config//tmp/x"),
        (archive_entry("appliance/config/./x") + TRAILER, f"{NOT_ALLOWED}appliance/config/./x"),
        (archive_entry("appliance/config/") + TRAILER, f"{NOT_ALLOWED}appliance/config/"),
        (archive_entry("appliance/config/l", LINK, b"/tmp") + TRAILER, f"{NO_FILE}appliance/config/l"),
        (
            archive_entry("appliance/config/d", stat.S_IFCHR | 0o666) + TRAILER,
            f"{NO_FILE}appliance/config/d",
        ),
        (
            archive_entry("appliance/config/f", stat.S_IFIFO | 0o666) + TRAILER,
            f"{NO_FILE}appliance/config/f",
        ),
        (
            archive_entry("appliance/config/a") * 2 + TRAILER,
            "cannot store the new file a: File exists",
        ),
        (
            archive_entry("appliance/config/no/such/directory") + TRAILER,
            "cannot store the new file no/such/directory: No such file or directory",
        ),
        (
            b"070701" + b"0" * 88 + b"ffffffff" + b"0" * 8 + b"appliance/config/x\0\0\0",
            "the archive is damaged",
        ),
        (
            configuration_archive({"big": bytes(200_000)})[:100_000],
            "the archive is cut short",
        ),
    ],
)
def test_bad_archives_change_nothing(idle: Guest, content: bytes, reason: str) -> None:
    assert idle.reload(content) == f"reload failed: {reason}"
    assert idle.reload(NEW) == "running"
    assert idle.stop() == 0


def test_what_lies_beside_the_configuration_is_left_out(idle: Guest) -> None:
    beside = (
        archive_entry("/tmp/x")
        + archive_entry("../x")
        + archive_entry("appliance/boot")
        + archive_entry("appliance/l", LINK, b"/tmp")
    )
    assert (
        idle.reload(beside + archive({"appliance/localtime": b"x", "appliance/config/a": b"x"})) == "running"
    )


def test_files_that_do_not_fit_into_memory(idle: Guest) -> None:
    outcome = idle.reload({"big": bytes(64 << 20)})
    assert outcome == "reload failed: cannot store the new configuration: No space left on device"
    assert idle.reload(NEW) == "running"


def test_mutated_archives_are_answered(idle: Guest) -> None:
    chance = random.Random(3)
    good = configuration_archive({"a": b"x" * 700, "deep/b": b"y" * 30, "deep/er/c": b""})
    for _ in range(40):
        content = bytearray(good)
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(content))
            content[at : at + chance.randrange(3)] = chance.choice(
                [b"/", b"..", b"\0", b"f", b"070701", b""]
            )
        assert idle.reload(bytes(content))
    assert idle.reload(NEW) == "running"
    assert idle.stop() == 0
