"""What the plans need to know of the host, from whatever its files say."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host import facts
from agent.host.facts import local_time, loops_per_jiffy, read_facts, systemd_version

MACHINE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(facts, "run", lambda _argv: b"systemd 257 (257.9-1~deb13u1)\n+PAM\n")
    for name, content in {
        "etc/machine-id": f"{MACHINE}\n",
        "etc/resolv.conf": "nameserver 192.0.2.1\n",
        "sys/devices/system/cpu/online": "0-1,3\n",
        "proc/cpuinfo": "processor\t: 0\nbogomips\t: 4800.00\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "etc/localtime").symlink_to("../usr/share/zoneinfo/Europe/Berlin")
    return tmp_path


def test_everything(root: Path) -> None:
    found = read_facts(root)
    assert (found.systemd_version, found.opens_files) == (257, True)
    assert found.machine_id == MACHINE
    assert found.cores == (0, 1, 3)
    assert found.loops_per_jiffy == 24_000_000
    assert found.nameservers == (ip_address("192.0.2.1"),)
    assert found.time_zone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# nameserver 192.0.2.9\nnameserver\t192.0.2.1 \nnameserver fd00::1\n", ["192.0.2.1", "fd00::1"]),
        ("nameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver fe80::2\n", []),
        ("nameserver 192.0.2.300\nnameserver 1.2.3\nnameserver :::\nnameserver 192.0.2.1", ["192.0.2.1"]),
        ("search nameserver 192.0.2.1\n", []),
    ],
)
def test_resolvers_that_a_guest_can_reach(root: Path, text: str, expected: list[str]) -> None:
    (root / "etc/resolv.conf").write_text(text)
    assert list(map(str, read_facts(root).nameservers)) == expected


@given(st.text(alphabet="nameserver 0123456789.:abcf\n", max_size=80))
def test_any_resolv_conf_can_be_read(text: str) -> None:
    for line in text.splitlines():
        assert len(list(facts.parse_nameservers(f"nameserver {line}\n"))) <= 1


def test_systemd_resolved_s_own_list_comes_first(root: Path) -> None:
    (root / "run/systemd/resolve").mkdir(parents=True)
    (root / "run/systemd/resolve/resolv.conf").write_text("nameserver 192.0.2.7\n")
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
    assert read_facts(root).nameservers == (ip_address("192.0.2.7"),)


def test_a_host_that_says_little(root: Path) -> None:
    (root / "etc/localtime").unlink()
    (root / "etc/resolv.conf").unlink()
    found = read_facts(root)
    assert (found.time_zone, found.nameservers) == ("UTC", ())


@pytest.mark.parametrize("target", ["/etc/zone", "zoneinfo/"])
def test_a_time_zone_without_a_name_is_utc(root: Path, target: str) -> None:
    (root / "etc/localtime").unlink()
    (root / "etc/localtime").symlink_to(target)
    assert read_facts(root).time_zone == "UTC"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [("bogomips\t: 5000.50\n", 25_002_500), ("", 20_000_000), ("bogomips: x", 20_000_000)],
)
def test_loops_per_jiffy(cpuinfo: str, expected: int) -> None:
    assert loops_per_jiffy(cpuinfo) == expected


@pytest.mark.parametrize(
    ("output", "version"), [(b"systemd 252 (252.38-1)\n", 252), (b"systemd 260~rc1", 260), (b"", 0)]
)
def test_the_version_of_systemd(monkeypatch: pytest.MonkeyPatch, output: bytes, version: int) -> None:
    monkeypatch.setattr(facts, "run", lambda _argv: output)
    assert systemd_version() == version


def test_local_time_follows_the_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the host's clocks show it, also after they were set to another zone."""
    try:
        for zone, hours in (("UTC0", 0), ("XXX-5", 5), ("YYY8", -8)):
            monkeypatch.setenv("TZ", zone)
            off = local_time() - datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=hours)
            assert abs(off) < timedelta(minutes=1)
    finally:
        monkeypatch.undo()
        time.tzset()
