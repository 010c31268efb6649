"""The images that are shipped as recipes: built twice the same, and doing what their roles promise."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.recipe import read_recipe
from agent.host.store import ImageStore
from agent.image.build import build
from agent.model.appliance import Appliance, Isolation
from agent.model.image import Image, ImageReference
from agent.plan.guest import boot_text
from tests.guest.uml import Boot, Guest

RECIPES = Path(__file__).parents[2] / "conf/images"
ZONE = b"""\
$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 300
@ IN NS ns
ns IN A 192.0.2.53
www IN A 192.0.2.80
"""
MAXIMUM_SIZE_BYTES = 15 << 20


@pytest.fixture(scope="session")
def packages_cache() -> Iterator[None]:
    """Fetched packages are kept with everything else that is expensive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.environ.get("APPLIANCE_CACHE", "/var/cache/appliance-build"))
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield


def build_recipe(name: str, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = RECIPES / f"{name}.yaml"
    return build(read_recipe(path.read_bytes(), str(path)), directory / f"{name}.squashfs").path


@pytest.fixture(scope="session")
def shipped(packages_cache: None, build_directory: Path) -> Callable[[str], Image]:
    """Images by the name of their recipe, built once and imported into a store."""
    store = ImageStore(build_directory / "store/images")
    images: dict[str, Image] = {}

    def image(name: str) -> Image:
        if name not in images:
            images[name] = store.import_file(build_recipe(name, build_directory))
        return images[name]

    return image


def start(
    boot: Boot, image: Image, *, config: dict[str, bytes] | None = None, data: Path | None = None
) -> Guest:
    """The image as the agent would start it, without a network."""
    appliance = Appliance(
        name="guest",
        image=ImageReference(digest=image.digest),
        networks=(),
        memory_bytes=image.manifest.requests.memory_bytes,
        data_bytes=0,
        health_interval_s=0.2,
        isolation=Isolation.STRICT,
        kernel="",
        time_zone="",
    )
    boot_plan = boot_text(appliance, image.manifest, (), ())
    if data:
        return boot(boot_plan, image=Path(image.path), config=config or {}, data=data)
    return boot(boot_plan, image=Path(image.path), config=config or {})


def with_health(image: Image, *command: str) -> Image:
    """The image with another health check: what it needs to hear from its own service."""
    return replace(image, manifest=replace(image.manifest, health=command))


def assert_serves(guest: Guest) -> None:
    """Ready, healthy, and stopped cleanly."""
    guest.wait_ready()
    guest.wait_until(lambda: guest.watchdog_count > 0)
    assert not any(status.startswith("unhealthy") for status in guest.statuses), guest.describe()
    assert guest.stop() == 0


@pytest.mark.parametrize("name", ["dns-nsd", "web-nginx"])
def test_small(shipped: Callable[[str], Image], name: str) -> None:
    assert shipped(name).size_bytes < MAXIMUM_SIZE_BYTES


def test_built_again_it_is_the_same(
    shipped: Callable[[str], Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    umask = os.umask(0o077)
    try:
        again = build_recipe("dns-nsd", tmp_path / "elsewhere")
    finally:
        os.umask(umask)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == shipped("dns-nsd").digest.hex


def test_dns(shipped: Callable[[str], Image], boot: Boot) -> None:
    assert_serves(start(boot, shipped("dns-nsd"), config={"zones/example.test.zone": ZONE}))


def test_dns_answers_for_its_zones(shipped: Callable[[str], Image], boot: Boot) -> None:
    asking = with_health(
        shipped("dns-nsd"), "/run/appliance/bin/nslookup", "-type=a", "www.example.test", "127.0.0.1"
    )
    assert_serves(start(boot, asking, config={"zones/example.test.zone": ZONE}))


def test_dns_without_zones(shipped: Callable[[str], Image], boot: Boot) -> None:
    guest = start(boot, shipped("dns-nsd"))
    assert_serves(guest)
    assert (
        "<4>No zone files in the configuration's zones directory; every query will be refused."
        in guest.lines
    )


def test_dns_serves_the_other_zones_when_one_is_wrong(shipped: Callable[[str], Image], boot: Boot) -> None:
    asking = with_health(
        shipped("dns-nsd"), "/run/appliance/bin/nslookup", "-type=a", "www.example.test", "127.0.0.1"
    )
    zones = {"zones/example.test.zone": ZONE, "zones/bad.test.zone": ZONE + b"x IN BLAH y\n"}
    guest = start(boot, asking, config=zones)
    guest.wait_text("zones/bad.test.zone:6: ")
    assert_serves(guest)


def test_dns_refuses_a_zone_file_that_names_no_zone(shipped: Callable[[str], Image], boot: Boot) -> None:
    guest = start(boot, shipped("dns-nsd"), config={'zones/a".zone': ZONE})
    assert guest.wait_end() == 85
    assert "the file name is not the name of a zone" in guest.text


def test_dns_checks_what_the_administrator_added(shipped: Callable[[str], Image], boot: Boot) -> None:
    good = start(boot, shipped("dns-nsd"), config={"nsd/more.conf": b"server:\n  rrl-ratelimit: 200\n"})
    good.wait_ready()
    bad = start(boot, shipped("dns-nsd"), config={"nsd/more.conf": b"server:\n  no-such-option: 200\n"})
    assert bad.wait_end() == 86
    assert "nsd/more.conf:2: " in bad.text


def test_web(shipped: Callable[[str], Image], boot: Boot, data: Path) -> None:
    assert_serves(start(boot, shipped("web-nginx"), data=data))


def test_web_serves_the_site_on_the_data_volume(
    shipped: Callable[[str], Image], boot: Boot, data: Path
) -> None:
    first = start(boot, shipped("web-nginx"), data=data)
    assert_serves(first)
    asking = with_health(
        shipped("web-nginx"), "/run/appliance/bin/wget", "-q", "-O", "-", "http://127.0.0.1/"
    )
    again = start(boot, asking, data=data)
    again.wait_text('"GET / HTTP/1.1" 200')
    assert_serves(again)


def test_web_checks_what_the_administrator_added(
    shipped: Callable[[str], Image], boot: Boot, data: Path
) -> None:
    guest = start(boot, shipped("web-nginx"), config={"more.conf": b"no_such_option on;\n"}, data=data)
    assert guest.wait_end() == 86
    assert 'unknown directive "no_such_option" in /run/appliance/config/more.conf:1' in guest.text
