"""The image that docs/interface-1.md builds by hand, from its own text to its answer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent.config.manifest import read_manifest
from agent.model.appliance import Appliance, Isolation
from agent.model.image import MANIFEST_PATH, ImageReference
from agent.plan.guest import boot_text
from tests.guest.uml import Boot

PAGE = Path(__file__).parents[2] / "docs/interface-1.md"


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The directory in which the page's commands ran."""
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    subprocess.run(["sh", "-e", "-u", "-c", script], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    return tmp_path


def test_image_by_hand_becomes_ready(boot: Boot, hello: Path) -> None:
    path = hello / "hello" / MANIFEST_PATH
    manifest = read_manifest(path.read_bytes(), str(path))
    appliance = Appliance(
        name="hello",
        image=ImageReference(name="hello"),
        networks=(),
        memory_bytes=0,
        data_bytes=0,
        health_interval_s=0.05,
        isolation=Isolation.STRICT,
        kernel="",
        time_zone="",
    )
    guest = boot(boot_text(appliance, manifest, ports=(), nameservers=()), image=hello / "hello.squashfs")
    guest.wait_ready()
    guest.wait_until(lambda: guest.watchdog_count >= 2)
    assert guest.stop() == 0


def test_manifest_of_the_page_is_valid() -> None:
    manifest, *_ = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert read_manifest(manifest.encode(), str(PAGE)).title == "dns-nsd 4.6.1-1"
