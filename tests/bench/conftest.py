"""Benchmarks: `tests/run bench`. They print figures and judge nothing; only a wrong answer fails one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.report import Report
from tests.system import images
from tests.system.lab import Host

_report = Report()

ZONE = """\
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
ns A 10.88.0.53
www A 10.88.0.80
"""

PLAIN_UNIT = """\
[Unit]
StartLimitIntervalSec=0
[Service]
RootDirectory=/srv/plain
ExecStart=/usr/sbin/nsd -d -c /etc/nsd/plain.conf
CPUAffinity=0
"""
PLAIN_CONFIG = """\
include: "/etc/nsd/nsd.conf"
server:
    ip-address: 127.0.0.153
zone:
    name: "example.test"
    zonefile: "/etc/nsd/example.test.zone"
"""
PLAIN_ADDRESS = "127.0.0.153"


@pytest.fixture(scope="session")
def report() -> Report:
    return _report


@pytest.fixture(scope="session")
def host() -> Host:
    """The newest host of tests/run, with the sample images."""
    lab = Host(os.environ["APPLIANCE_LABS"].split()[-1])
    for path in sorted(Path(os.environ["APPLIANCE_IMAGES"]).glob("*.squashfs")):
        lab.write(f"/var/tmp/{path.name}", path.read_bytes())
        lab.run("appliancectl", "image", "import", f"/var/tmp/{path.name}")
    lab.write("/root/probe.py", (Path(__file__).parent / "probe.py").read_text(encoding="utf-8"))
    return lab


@pytest.fixture(scope="session")
def dns(host: Host) -> Iterator[str]:
    """Two name servers, dns and spare, stopped."""
    for number, name in enumerate(("dns", "spare")):
        host.write(f"/etc/appliance/config/{name}/zones/example.test.zone", ZONE)
        text = f"image: dns-nsd\nnetwork: {{name: default, address: 10.88.0.{53 + number}}}\n"
        host.write(f"/etc/appliance/appliances/{name}.yaml", text)
    host.run("appliancectl", "apply")
    yield "dns"
    host.run("sh", "-c", "rm -rf /etc/appliance/appliances/* /etc/appliance/config/*")
    host.run("appliancectl", "apply")


@pytest.fixture(scope="session")
def caller(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An appliance that measures its own system calls, stopped."""
    image = images.build(tmp_path_factory.mktemp("images"))
    host.write(f"/var/tmp/{image.name}", image.read_bytes())
    host.run("appliancectl", "image", "import", f"/var/tmp/{image.name}")
    yield "caller"
    host.run("rm", "-f", "/etc/appliance/appliances/caller.yaml")
    host.run("appliancectl", "apply")


@pytest.fixture(scope="session")
def plain(host: Host, dns: str) -> Iterator[str]:
    """The same server from the same files as a plain systemd service of the host."""
    image = host.appliance(dns)["digest"].replace(":", "-")
    store = f"/var/lib/appliance/images/{image}/image.squashfs"
    host.run("unsquashfs", "-quiet", "-no-progress", "-force", "-dest", "/srv/plain", store)
    host.write("/srv/plain/etc/nsd/plain.conf", PLAIN_CONFIG)
    host.write("/srv/plain/etc/nsd/example.test.zone", ZONE)
    host.write("/etc/systemd/system/plain-dns.service", PLAIN_UNIT)
    host.run("systemctl", "daemon-reload")
    yield "plain-dns"
    host.run("systemctl", "stop", "plain-dns")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _report.rows:
        return
    terminalreporter.section("figures")
    terminalreporter.write_line(_report.machine())
    for line in _report.lines():
        terminalreporter.write_line(line)
    path = Path(os.environ.get("APPLIANCE_CACHE", "/var/cache/appliance-build")) / "bench.json"
    _report.write(path)
    terminalreporter.write_line(f"all values: {path}")
