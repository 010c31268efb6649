"""The runtime's parsers on this host, built with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.uml import TRAILER, archive_entry

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "agent/guest"

BASE = "interface=1\nhostname=dns\nexec=/bin/service\n"

Run = Callable[[str, bytes], "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Run:
    program = tmp_path_factory.mktemp("pure") / "pure"
    subprocess.run(
        [
            "gcc", "-std=c17", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{SOURCE}", "-o", program,
            HERE / "pure.c",
            *(SOURCE / name for name in ("archive.c", "newc.c", "plan.c", "reason.c", "rfc3164.c")),
        ],
        check=True,
    )  # fmt: skip

    def run(mode: str, text: bytes) -> subprocess.CompletedProcess[bytes]:
        result = subprocess.run([program, mode], input=text, capture_output=True, check=False)
        assert result.stderr == b"", result.stderr.decode(errors="replace")
        return result

    return run


FULL = f"""{BASE}\
address=vec0 10.88.0.53/24
address=vec0 fd12::35/64
gateway=10.88.0.1
gateway=fd12::1
mtu=vec0 1500
nameserver=10.88.0.1
nameserver=fd12::1
search=example.test
host=10.88.0.53 dns
tmpfs=/var/lib/nsd
data=/data
prepare=/usr/lib/appliance/prepare
prepare=
check=/bin/check
exec=-d
health=/bin/health
reload-signal=1
environment=TZ=
ready=udp 53
ready=tcp 65535
ready=exec
ready=notify
ready-exec=/bin/ready
ready-timeout-ms=30000
stop-signal=15
stop-timeout-ms=0
health-interval-ms=2000
health-timeout-ms=2000
"""


RELOAD = "reload=/bin/tell\nreload=again\n"


@pytest.mark.parametrize(
    "plan", [BASE, FULL, FULL.rstrip("\n"), BASE + "\n\n", BASE + "until=check\n", BASE + RELOAD]
)
def test_valid_plans(pure: Run, plan: str) -> None:
    assert pure("plan", plan.encode()).stdout == b"valid\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("colour", "'colour' is not KEY=VALUE"),
        ("colour=blue", "unknown key 'colour'"),
        ("interface=1", "unknown key 'interface'"),
        ("hostname=again", "the key 'hostname' stands there twice"),
        ("address=vec0 10.88.0.53", "address: 'vec0 10.88.0.53' is not DEVICE ADDRESS/PREFIX"),
        ("address=vec0 10.88.0/24", "address: '10.88.0' is neither an IPv4 nor an IPv6 address"),
        ("address=vec0 10.88.0.53/33", "address: '33' is not a prefix length for 10.88.0.53"),
        ("address=vec0 fd12::35/129", "address: '129' is not a prefix length for fd12::35"),
        ("address=../../x 10.88.0.53/24", "address: '../../x 10.88.0.53/24' is not DEVICE ADDRESS/PREFIX"),
        (
            "address=sixteen-letters- 10.0.0.1/8",
            "address: 'sixteen-letters- 10.0.0.1/8' is not DEVICE ADDRESS/PREFIX",
        ),
        ("gateway=host", "gateway: 'host' is neither an IPv4 nor an IPv6 address"),
        ("nameserver=10.88.0.1 x", "nameserver: '10.88.0.1 x' is neither an IPv4 nor an IPv6 address"),
        ("mtu=vec0 20", "mtu: 'vec0 20' is not DEVICE BYTES with 576 to 65535 bytes"),
        ("tmpfs=var", "tmpfs: 'var' is not an absolute path"),
        ("data=data", "data: 'data' is not an absolute path"),
        ("prepare=prepare", "prepare: 'prepare' is not an absolute path"),
        ("environment=1X=y", "environment: '1X=y' is not NAME=value"),
        ("environment=X", "environment: 'X' is not NAME=value"),
        ("ready=tcp 0", "ready: 'tcp 0' is none of 'tcp PORT', 'udp PORT', 'exec', 'notify'"),
        ("ready=tcp 65536", "ready: 'tcp 65536' is none of 'tcp PORT', 'udp PORT', 'exec', 'notify'"),
        ("ready=executable", "ready: 'executable' is none of 'tcp PORT', 'udp PORT', 'exec', 'notify'"),
        ("ready=exec", "'ready=exec' and 'ready-exec=' go together"),
        ("reload=tell", "reload: 'tell' is not an absolute path"),
        ("reload-signal=0", "reload-signal: '0' is not a number from 1 to 64"),
        ("reload-signal=HUP", "reload-signal: 'HUP' is not a number from 1 to 64"),
        (f"{RELOAD}reload-signal=1", "'reload=' and 'reload-signal=' exclude each other"),
        ("stop-signal=TERM", "stop-signal: 'TERM' is not a number from 1 to 64"),
        ("stop-signal=-1", "stop-signal: '-1' is not a number from 1 to 64"),
        ("stop-timeout-ms=86400001", "stop-timeout-ms: '86400001' is not a number from 0 to 86400000"),
        ("stop-timeout-ms=9999999999", "stop-timeout-ms: '9999999999' is not a number from 0 to 86400000"),
        ("until=ready", "'until' knows only 'check', found 'ready'"),
        ("until=", "'until' knows only 'check', found ''"),
        ("health-interval-ms=0", "health-interval-ms: '0' is not a number from 10 to 86400000"),
    ],
)
def test_refused_lines(pure: Run, line: str, error: str) -> None:
    result = pure("plan", f"{BASE}{line}\n".encode())
    assert result.returncode == 1
    assert result.stdout.decode().rstrip("\n").partition(": ")[2] == error


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        ("hostname=x\n", "boot plan line 1: expected 'interface=VERSION', found 'hostname=x'"),
        ("interface=01x\n", "boot plan line 1: interface '01x' is not supported, this runtime speaks 1"),
        ("interface=1\nexec=/bin/x\n", "boot plan line 3: no hostname"),
        ("interface=1\nhostname=dns\n", "boot plan line 3: no exec: there is no service to run"),
        (f"interface=1\nhostname={'x' * 65}\n", "boot plan line 2: hostname is longer than 64 bytes"),
        (BASE + "exec=a\0b\n", "boot plan: contains a NUL byte"),
        (BASE + "exec=x\n" * 128, "boot plan line 131: too many lines with the key 'exec'"),
    ],
)
def test_refused_plans(pure: Run, plan: str, error: str) -> None:
    result = pure("plan", plan.encode())
    assert (result.returncode, result.stdout.decode()) == (1, error + "\n")


def test_mutated_plans_are_answered(pure: Run) -> None:
    chance = random.Random(1)
    noise = [b"\n", b"=", b"", b"/", b" ", b"9" * 40, b"x" * 300]
    for _ in range(200):
        text = bytearray(FULL.encode())
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(text))
            text[at : at + chance.randrange(3)] = chance.choice(noise)
        assert pure("plan", bytes(text)).stdout.count(b"\n") >= 1


@pytest.mark.parametrize(
    ("datagram", "line"),
    [
        (b"<30>Jan  2 03:04:05 nsd[53]: zone loaded\n", b"<6>nsd[53]: zone loaded"),
        (b"<27>Dec 24 23:59:59 nsd: failed", b"<3>nsd: failed"),
        (b"<191>x: y", b"<7>x: y"),
        (b"<192>x: y", b"<5><192>x: y"),
        (b"<>x: y", b"<5><>x: y"),
        (b"<3", b"<5><3"),
        (b"no header", b"<5>no header"),
        (b"<11>tag:no blank", b"<3>tag: no blank"),
        (b"<11>two words: text", b"<3>two words: text"),
        (b"<11>a: b\nc\x00d\x7f\x1b[0m\te\n\n\x00", b"<3>a: b\\x0ac\\x00d\\x7f\\x1b[0m\te"),
        ("<11>a: grüße".encode(), "<3>a: grüße".encode()),
        (b"<11>Jan  2 03:04:05 ", b"<3>"),
        (b"", b"<5>"),
    ],
)
def test_syslog_lines(pure: Run, datagram: bytes, line: bytes) -> None:
    assert pure("syslog", datagram).stdout == line + b"\n"


def test_long_syslog_message_goes_on_in_marked_lines(pure: Run) -> None:
    message = "äöü" * 1000
    lines = pure("syslog", f"<30>nsd[53]: {message}".encode()).stdout.decode().splitlines(keepends=True)
    prefix = "<6>nsd[53]: "
    assert len(lines) == 3
    assert all(line.startswith(prefix) and len(line.encode()) <= 2048 for line in lines)
    assert all(line.endswith("...\n") for line in lines[:-1])
    assert "".join(line.removeprefix(prefix).rstrip("\n").removesuffix("...") for line in lines) == message


def test_random_datagrams_become_bounded_lines(pure: Run) -> None:
    chance = random.Random(2)
    for _ in range(200):
        datagram = chance.randbytes(chance.randrange(8192))
        if chance.random() < 0.5:
            datagram = b"<13>Jan  2 03:04:05 tag: " + datagram[:8000]
        for line in pure("syslog", datagram).stdout.split(b"\n")[:-1]:
            assert len(line) < 2048
            assert line[:3] in {b"<%d>" % severity for severity in range(8)}


def _header(mode: int = 0o100644, size: int = 0, name_size: int = 1) -> bytes:
    fields = (1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0)
    return b"070701" + "".join(f"{field:08x}" for field in fields).encode()


@pytest.mark.parametrize(
    ("header", "entry"),
    [
        (_header(0o100644, 0x1A2B, 9), b"mode 100644, 6699 bytes, name of 9"),
        (_header(0o40755, 0, 1024).upper(), b"mode 40755, 0 bytes, name of 1024"),
        (_header(0o100644, 0xFFFFFFFF), b"mode 100644, 4294967295 bytes, name of 1"),
        (_header(name_size=0), b"no header"),
        (_header(name_size=1025), b"no header"),
        (_header(name_size=0xFFFFFFFF), b"no header"),
        (b"070702" + _header()[6:], b"no header"),
        (_header()[:14] + b"0000 1a4" + _header()[22:], b"no header"),
        (_header()[:14] + b"0000\0001a4" + _header()[22:], b"no header"),
        (bytes(110), b"no header"),
    ],
)
def test_archive_headers(pure: Run, header: bytes, entry: bytes) -> None:
    assert pure("header", header).stdout == entry + b"\n"


@pytest.mark.parametrize("path", ["a", "a/b", "...", ".a/b.", "a b/..c", "TRAILER!!!", "ü"])
def test_plain_paths(pure: Run, path: str) -> None:
    assert pure("path", path.encode()).stdout == b"plain\n"


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/../b", "../a", "./a", "a/.."]
)
def test_paths_that_lead_elsewhere(pure: Run, path: str) -> None:
    assert pure("path", path.encode()).stdout == b"not plain\n"


FILE = archive_entry("a", content=b"x" * 5)


@pytest.mark.parametrize(
    ("archive", "listing"),
    [
        (TRAILER, "end"),
        (FILE + TRAILER, "a mode 100644, 5 bytes:xxxxx\nend"),
        (FILE + TRAILER + bytes(512), "a mode 100644, 5 bytes:xxxxx\nend"),
        (
            archive_entry(".skipped", content=b"y" * 40_001) + FILE + TRAILER,
            "a mode 100644, 5 bytes:xxxxx\nend",
        ),
        (
            archive_entry("d", 0o40755, b"") + FILE + TRAILER,
            "d mode 40755, 0 bytes:\na mode 100644, 5 bytes:xxxxx\nend",
        ),
        (
            archive_entry("long", content=b"z" * 70_000) + TRAILER,
            f"long mode 100644, 70000 bytes:{'z' * 70_000}\nend",
        ),
        (b"", "the archive is cut short"),
        (FILE, "a mode 100644, 5 bytes:xxxxx\nthe archive is cut short"),
        (FILE[:110], "the archive is cut short"),
        (archive_entry(".skipped", content=bytes(40_001))[:30_000], "the archive is cut short"),
        (FILE[:-4], "a mode 100644, 5 bytes:xxxxthe archive is cut short"),
        (FILE + bytes(512), "a mode 100644, 5 bytes:xxxxx\nthe archive is damaged"),
    ],
)
def test_archives(pure: Run, archive: bytes, listing: str) -> None:
    assert pure("archive", archive).stdout.decode() == listing + "\n"


def test_mutated_archives_are_answered(pure: Run) -> None:
    chance = random.Random(4)
    good = FILE + archive_entry("appliance/hosts", content=b"10.88.0.7 web\n" * 90) + TRAILER
    noise = [b"f" * 8, b"\0", b"0" * 8, b"", b"070701", b"x" * 300]
    for _ in range(200):
        content = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(content))
            content[at : at + chance.randrange(9)] = chance.choice(noise)
        assert pure("archive", bytes(content)).stdout.endswith((b"end\n", b"cut short\n", b"damaged\n"))
