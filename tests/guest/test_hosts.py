"""The names of other appliances in /etc/hosts: from the start, and while the guest runs."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Unpack

import pytest

from tests.guest.uml import (
    FOREVER,
    TRAILER,
    UNTIL_SIGNALLED,
    Boot,
    Guest,
    Machine,
    Options,
    Plan,
    archive_entry,
    configuration_archive,
    make_image,
    names_archive,
)

HUP = "reload-signal=1"
OWN = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.88.0.53 guest\n"
OWN_LINE = "host=10.88.0.53 guest"
DNS, WEB = "10.88.0.2 dns.example.test dns\n", "10.88.0.7 web\nfd12::7 web\n"
LARGEST = 64 * 1024
FOLLOW = f"exec prober follow /etc/hosts {len(OWN)}"


@pytest.fixture(scope="session")
def image_with_file(image_tree: Path, build_directory: Path) -> Path:
    """An image in which /etc/hosts is a file, which is covered."""
    tree = shutil.copytree(image_tree, build_directory / "with-file", symlinks=True)
    (tree / "etc/hosts").unlink()
    (tree / "etc/hosts").write_text("192.0.2.1 of-the-image\n")
    return make_image(tree, build_directory / "with-file.squashfs")


@pytest.fixture(params=["link", "file"])
def image(request: pytest.FixtureRequest, machine: Machine, image_with_file: Path) -> Path:
    """Both ways in which an image has /etc/hosts."""
    return image_with_file if request.param == "file" else machine.image


def _follow(boot: Boot, *more: str, **options: Unpack[Options]) -> Guest:
    """A guest whose service says what the last line of its /etc/hosts is, whenever that has changed."""
    guest = boot(Plan(exec=FOLLOW, more=[OWN_LINE, "health-interval-ms=50", *more]), **options)
    guest.wait_ready()
    return guest


def _spoken(guest: Guest) -> list[str]:
    """What the guest told its host, without its signs of life."""
    return [datagram for datagram in guest.datagrams if datagram != "WATCHDOG=1"]


def _of_service(guest: Guest) -> str:
    """The console without what the runtime says, which comes at any time."""
    return "".join(f"{line}\n" for line in guest.lines if not line.startswith("<"))


def _wait_for(guest: Guest, text: str) -> None:
    guest.wait_until(lambda: text in _of_service(guest))


def _wait_healthy(guest: Guest) -> None:
    seen = guest.watchdog_count
    guest.wait_until(lambda: guest.watchdog_count >= seen + 3)


# --- from the start -------------------------------------------------------------------------------------


def test_names_are_there_before_prepare(boot: Boot, image: Path) -> None:
    plan = Plan(
        prepare="cat /etc/hosts; echo prepared",
        exec=f"cat /run/appliance/hosts; prober resolve dns; prober resolve web; echo done; {FOREVER}",
        more=[OWN_LINE],
    )
    guest = boot(plan, hosts=DNS + WEB, image=image)
    guest.wait_line("done")
    file = OWN + DNS + WEB
    assert f"{file}prepared\n{file}" in _of_service(guest)
    assert {"dns is 10.88.0.2", "web is 10.88.0.7", "web is fd12::7"} <= set(guest.lines), guest.describe()


@pytest.mark.parametrize("disk", [{}, {"hosts": ""}, {"arguments": ["ubd3r=/no/such/file"]}])
def test_without_names_there_are_the_own_lines(boot: Boot, disk: Options) -> None:
    guest = boot(Plan(exec=f"cat /etc/hosts; echo done; {FOREVER}", more=[OWN_LINE]), **disk)
    guest.wait_line("done")
    assert _of_service(guest).endswith(f"{OWN}done\n")
    assert "names:" not in guest.text


def test_the_first_names_can_come_later(boot: Boot) -> None:
    guest = _follow(boot)
    guest.deliver_hosts(DNS)
    guest.wait_line("last 10.88.0.2 dns.example.test dns")


# --- while the guest runs -------------------------------------------------------------------------------


def test_a_service_that_runs_sees_new_names(boot: Boot, image: Path) -> None:
    look = "echo is $(stat -Lc %d:%i /etc/hosts)"
    service = f"""
        exec 3</etc/hosts
        {look}
        until grep -q web /etc/hosts; do usleep 20000; done
        {look}
        prober resolve web
        cat /etc/hosts; echo read
        cat <&3; echo read through the descriptor
    """
    guest = boot(Plan(exec=service + FOREVER, more=[OWN_LINE]), hosts=DNS, image=image)
    guest.wait_ready()
    guest.wait_text("is ")
    spoken = _spoken(guest)
    guest.deliver_hosts(WEB)
    guest.wait_line("read through the descriptor")
    assert len({line for line in guest.lines if line.startswith("is ")}) == 1, guest.describe()
    assert f"{OWN}{WEB}read\n{OWN}{WEB}read through the descriptor\n" in _of_service(guest)
    assert {"web is 10.88.0.7", "web is fd12::7"} <= set(guest.lines)
    assert _spoken(guest) == spoken
    assert guest.stop() == 0


def test_an_empty_list_removes_the_names(boot: Boot) -> None:
    guest = _follow(boot, hosts=DNS)
    guest.wait_line("last 10.88.0.2 dns.example.test dns")
    guest.deliver_hosts("")
    guest.wait_line("last 10.88.0.53 guest")


def test_names_come_while_prepare_runs(boot: Boot) -> None:
    plan = Plan(
        prepare="echo preparing; until grep -q web /etc/hosts; do usleep 20000; done",
        exec=f"echo up; {FOREVER}",
    )
    guest = boot(plan)
    guest.wait_line("preparing")
    guest.deliver_hosts(WEB)
    guest.wait_line("up")


def test_names_come_before_the_service_is_ready(boot: Boot) -> None:
    service = f"echo up; until grep -q web /etc/hosts; do usleep 20000; done; > /tmp/go; {FOREVER}"
    guest = boot(Plan(exec=service, ready_exec="test -e /tmp/go", more=["ready=exec", HUP]), hosts=DNS)
    guest.wait_line("up")
    guest.deliver_hosts(WEB)
    guest.wait_ready()
    assert guest.reloads == 0


def test_a_reader_never_misses_the_own_lines(boot: Boot, image: Path) -> None:
    guest = _follow(boot, image=image)
    for number in range(50):
        line = f"10.0.0.{number} n{number}"
        guest.deliver_hosts(f"{line}\n" * (1 + number * 997 % 3000))
        guest.wait_line(f"last {line}")
    assert "lost" not in guest.lines
    _wait_healthy(guest)
    assert guest.stop() == 0


def test_as_many_names_as_there_may_be(boot: Boot) -> None:
    first, second = ("".join(f"{line:0>15}\n" * (LARGEST // 16)) for line in ("1 a", "2 b"))
    guest = _follow(boot, hosts=first)
    guest.wait_line("last 0000000000001 a")
    guest.deliver_hosts(second)
    guest.wait_line("last 0000000000002 b")
    assert "names:" not in guest.text


# --- archives that no host makes ------------------------------------------------------------------------

NAMES = "appliance/hosts"
SIZE_FIELD = slice(54, 62)


def _with_size(entry: bytes, size: bytes) -> bytes:
    return entry[: SIZE_FIELD.start] + size + entry[SIZE_FIELD.stop :]


BEGIN_WITH_NAMES = [
    (archive_entry(NAMES), "the archive is damaged"),
    (archive_entry(NAMES, content=bytes(4096))[:2048], "the archive is cut short"),
    (names_archive("x" * (LARGEST + 1)), "more than 65536 bytes: 65537"),
    (_with_size(archive_entry(NAMES), b"ffffffff"), "more than 65536 bytes: 4294967295"),
    (archive_entry(NAMES) * 2 + TRAILER, f"the archive has something else as well: {NAMES}"),
    (
        archive_entry(NAMES) + archive_entry("appliance/config/a") + TRAILER,
        "the archive has something else as well: appliance/config/a",
    ),
    (
        archive_entry(NAMES, stat.S_IFLNK | 0o777, b"/etc/passwd") + TRAILER,
        f"the archive begins with something else: {NAMES}",
    ),
    (
        archive_entry(NAMES, stat.S_IFDIR | 0o755, b"") + TRAILER,
        f"the archive begins with something else: {NAMES}",
    ),
]
BEGIN_OTHERWISE = [
    (b"", "the archive is cut short"),
    (bytes(512), "the archive is damaged"),
    (archive_entry(NAMES)[:100], "the archive is damaged"),
    (b"10.88.0.7 web\n", "the archive is damaged"),
    (TRAILER, "the archive begins with something else: TRAILER!!!"),
    (configuration_archive({"a": b"x"}), "the archive begins with something else: appliance"),
    (
        archive_entry("appliance", stat.S_IFDIR | 0o755, b"") + names_archive(WEB),
        "the archive begins with something else: appliance",
    ),
]


def _refuse(guest: Guest, content: bytes, reason: str) -> None:
    """The reason is in the log, and nothing else has changed."""
    spoken = _spoken(guest)
    guest.output = b""
    guest.deliver_hosts(content)
    guest.wait_line(f"<3>names: {reason}")
    _wait_healthy(guest)
    assert _spoken(guest) == spoken
    assert guest.text.count("names:") == 1
    assert _of_service(guest) == ""


def test_names_that_cannot_be_read_leave_the_old_ones(boot: Boot) -> None:
    guest = _follow(boot, hosts=DNS)
    guest.wait_line("last 10.88.0.2 dns.example.test dns")
    for content, reason in BEGIN_WITH_NAMES + BEGIN_OTHERWISE:
        _refuse(guest, content, reason)
    guest.deliver_hosts(WEB)
    guest.wait_line("last fd12::7 web")
    assert guest.stop() == 0


def test_nor_are_they_a_configuration(boot: Boot) -> None:
    guest = _follow(boot, HUP, hosts=DNS)
    guest.wait_line("last 10.88.0.2 dns.example.test dns")
    for content, reason in BEGIN_WITH_NAMES:
        _refuse(guest, content, reason)
    assert guest.reloads == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [BEGIN_WITH_NAMES[2], BEGIN_WITH_NAMES[3], BEGIN_WITH_NAMES[5], *BEGIN_OTHERWISE[1:]],
)
def test_a_guest_starts_without_names_that_cannot_be_read(boot: Boot, content: bytes, reason: str) -> None:
    guest = _follow(boot, hosts=content)
    guest.wait_line("last 10.88.0.53 guest")
    assert f"<3>names: {reason}" in guest.lines
    guest.deliver_hosts(WEB)
    guest.wait_line("last fd12::7 web")


# --- beside reloads -------------------------------------------------------------------------------------

# What prepare and the service say has the value of the administrator's file; new values take their time.
RELOADING = Plan(
    prepare="read v </run/appliance/config/value; echo preparing $v; test $v = old || usleep 300000",
    exec=f"trap 'cat /run/appliance/config/value /etc/hosts; echo told' HUP; echo up; {UNTIL_SIGNALLED}",
    more=[HUP, OWN_LINE],
)


def _values(value: str) -> dict[str, bytes]:
    return {"value": f"{value}\n".encode(), **RELOADING.scripts}


@pytest.fixture
def reloading(boot: Boot) -> Guest:
    """A guest that reloads, with names from its start."""
    guest = boot(RELOADING, config=_values("old"), hosts=DNS)
    guest.wait_line("up")
    guest.wait_ready()
    return guest


def test_a_reload_keeps_the_names(reloading: Guest) -> None:
    assert reloading.reload(_values("new")) == "running"
    _wait_for(reloading, f"new\n{OWN}{DNS}told\n")
    reloading.deliver_hosts(WEB)
    assert reloading.reload(_values("newer")) == "running"
    reloading.wait_until(lambda: reloading.lines.count("told") == 2)
    assert reloading.reload(configuration_archive(_values("newest"))) == "running"
    _wait_for(reloading, f"newest\n{OWN}{WEB}told\n")
    assert reloading.reloads == 3
    assert reloading.stop() == 0


def test_names_do_not_disturb_a_reload(reloading: Guest) -> None:
    reloading.deliver(_values("new"))
    reloading.wait_line("preparing new")
    reloading.deliver_hosts(WEB)
    reloading.wait_until(lambda: reloading.outcome != "")
    assert reloading.outcome == "running"
    _wait_for(reloading, f"new\n{OWN}{WEB}told\n")
    assert reloading.reloads == 1
    assert "names:" not in reloading.text


def test_names_in_place_of_a_configuration_that_was_not_looked_at(reloading: Guest) -> None:
    """They are no configuration without files."""
    reloading.deliver(_values("new"))
    reloading.wait_line("preparing new")
    reloading.deliver(_values("newer"))
    reloading.deliver_hosts(WEB)
    reloading.wait_until(lambda: reloading.reloads == 2 and reloading.outcome != "")
    assert reloading.outcome == "reload failed: the disk with the new configuration was taken away"
    assert reloading.reload(_values("newest")) == "running"
    _wait_for(reloading, f"newest\n{OWN}{WEB}told\n")


def test_names_behind_something_else_are_none(reloading: Guest) -> None:
    beside = archive_entry("appliance/boot") + archive_entry(NAMES, content=WEB.encode())
    assert reloading.reload(beside + configuration_archive(_values("new"))) == "running"
    _wait_for(reloading, f"new\n{OWN}{DNS}told\n")
