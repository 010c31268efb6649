"""Fixtures of the system tier: hosts from tests/run (APPLIANCE_LABS, APPLIANCE_IMAGES), which share the
tests (APPLIANCE_PART), and appliances on them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import images
from tests.system.images import CRASH, Kind
from tests.system.lab import Host

LABS = os.environ.get("APPLIANCE_LABS", "").split()
SLOW = {"test_reconfigure": 2, "test_package": 5}
"""Modules whose tests take so many times as long as others do."""
PART, PARTS = map(int, os.environ.get("APPLIANCE_PART", "1/1").split("/"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the modules that are this host's share: about as much as the others have."""
    shares: list[list[Path]] = [[] for _ in range(PARTS)]
    counts = Counter(item.path for item in items)
    weights = {path: count * SLOW.get(path.stem, 1) for path, count in counts.items()}
    for module in sorted(weights, key=lambda path: (-weights[path], path)):
        min(shares, key=lambda share: sum(weights[path] for path in share)).append(module)
    own = set(shares[PART - 1])
    config.hook.pytest_deselected(items=[item for item in items if item.path not in own])
    items[:] = [item for item in items if item.path in own]


ZONE = """\
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
ns A 10.88.0.53
www A 10.88.0.80
"""


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every image the tests use: the samples that tests/run built, and our own."""
    directory = tmp_path_factory.mktemp("images")
    own = [
        images.build(directory),
        images.build(directory, Kind(version="2")),
        images.build(directory, Kind(name="crasher", exec=CRASH)),
    ]
    return [*sorted(Path(os.environ["APPLIANCE_IMAGES"]).glob("*.squashfs")), *own]


@pytest.fixture(scope="session", params=LABS)
def prepared_host(request: pytest.FixtureRequest, image_files: list[Path]) -> Host:
    """A host with all images in its store."""
    host = Host(request.param)
    for path in image_files:
        host.write(f"/var/tmp/{path.name}", path.read_bytes())
        host.run("appliancectl", "image", "import", f"/var/tmp/{path.name}")
    _remove_appliances(host)
    return host


@pytest.fixture
def host(prepared_host: Host) -> Iterator[Host]:
    """A host without appliances, before and after."""
    yield prepared_host
    _remove_appliances(prepared_host)


def _remove_appliances(host: Host) -> None:
    """Whatever a test has left must not fail the next one."""
    host.run("sh", "-euc", _REMOVE_APPLIANCES)


_REMOVE_APPLIANCES = """\
rm -rf /etc/appliance/appliances/* /etc/appliance/config/*
systemctl reset-failed
systemctl start appliance-agent
appliancectl apply
rm -rf /var/lib/appliance/appliances/*
"""


Make = Callable[..., None]


@pytest.fixture
def make(host: Host) -> Make:
    """`make("web", "image: …", greeting="…")`: configure and apply an appliance, with configuration files by
    name."""

    def make_appliance(name: str, text: str, **files: str) -> None:
        host.write(f"/etc/appliance/appliances/{name}.yaml", text)
        for file, content in files.items():
            host.write(f"/etc/appliance/config/{name}/{file.replace('_', '-')}", content)
        host.run("appliancectl", "apply")

    return make_appliance


@pytest.fixture
def web(host: Host, make: Make) -> str:
    """The misbehaving web appliance, running on 10.88.0.80 with life signs every 400 ms."""
    network = "network: {name: default, address: 10.88.0.80}"
    text = f"image: misbehave:1\n{network}\ndata: 8M\nhealth: {{interval: 400ms}}\n"
    make("web", text, greeting="hello\n")
    host.run("systemctl", "start", "appliance@web")
    return "web"


@pytest.fixture
def dns(host: Host) -> str:
    """The real name server, running on 10.88.0.53 and authoritative for example.test."""
    host.write("/etc/appliance/config/dns/zones/example.test.zone", ZONE)
    host.write(
        "/etc/appliance/appliances/dns.yaml",
        "image: dns-nsd\nnetwork: {name: default, address: 10.88.0.53}\n",
    )
    host.run("appliancectl", "apply")
    host.run("systemctl", "start", "appliance@dns")
    return "dns"
