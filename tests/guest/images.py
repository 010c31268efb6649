"""The images that are shipped as recipes, and how tests start and hear them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config.recipe import read_recipe
from agent.image.build import build
from agent.model.appliance import Appliance, Isolation
from agent.model.image import Image, ImageReference
from agent.plan.guest import boot_text, check_text
from tests.guest.uml import SHELL, Boot, Guest, Options

RECIPES = Path(__file__).parents[2] / "conf/images"


@dataclass(frozen=True, kw_only=True)
class Network:
    """What becomes vec0, and the lines of the boot plan about it."""

    device: socket.socket
    lines: Sequence[str]


def build_recipe(name: str, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = RECIPES / f"{name}.yaml"
    return build(read_recipe(path.read_bytes(), str(path)), directory / f"{name}.squashfs").path


def start(
    boot: Boot,
    image: Image,
    *,
    config: dict[str, bytes] | None = None,
    data: Path | None = None,
    network: Network | None = None,
) -> Guest:
    """The image as the agent would start it, with the memory it asks for."""
    text = boot_text(_appliance(image), image.manifest, (), ())
    options = _options(image, config or {})
    if data:
        options["data"] = data
    if network:
        text += "".join(f"{line}\n" for line in network.lines)
        options["devices"] = [network.device]
    return boot(text, **options)


def check(boot: Boot, image: Image, *, config: dict[str, bytes]) -> Guest:
    """The guest in which the agent has the image check a configuration."""
    return boot(check_text(_appliance(image), image.manifest), **_options(image, config))


def _appliance(image: Image) -> Appliance:
    return Appliance(
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


def _options(image: Image, config: dict[str, bytes]) -> Options:
    memory = f"mem={image.manifest.requests.memory_bytes >> 10}K"
    return {"image": Path(image.path), "config": config, "arguments": [memory]}


def with_health(image: Image, *command: str) -> Image:
    """The image with another health check: what it needs to hear from its own service."""
    return replace(image, manifest=replace(image.manifest, health=command))


def telling(image: Image, script: str) -> Image:
    """The image with a script for the runtime's shell as its health check: what that writes can be heard."""
    return with_health(image, SHELL, "-c", f"{{ {script}; echo END; }} 2>&1 | logger -t heard")


def hear(guest: Guest) -> list[str]:
    """What the script of telling() wrote the first time. The guest is stopped then."""
    guest.wait_text("heard: END")
    assert guest.stop() == 0
    lines = [line.split("heard: ", 1)[1] for line in guest.lines if "heard: " in line]
    return lines[: lines.index("END")]


def assert_serves(guest: Guest) -> None:
    """Ready, healthy, and stopped cleanly."""
    guest.wait_ready()
    guest.wait_until(lambda: guest.watchdog_count > 0)
    assert not any(status.startswith("unhealthy") for status in guest.statuses), guest.describe()
    assert guest.stop() == 0
