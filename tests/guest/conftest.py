"""The runtime under test, a small image for it, and guests that never outlive their test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from uml import Guest, Machine, Plan

HERE = Path(__file__).parent
RUNTIME_SOURCE = HERE.parents[1] / "agent/guest"
DEFAULT_KERNEL = "/usr/lib/appliance/linux"

STATE_OWNER = (123, 456)

Boot = Callable[..., Guest]


def _compile(source: Path, output: Path, *options: str) -> Path:
    subprocess.run(["musl-gcc", "-static", "-s", "-Os", *options, "-o", output, source], check=True)
    return output


@pytest.fixture(scope="session")
def kernel() -> Path:
    """The guest kernel: $APPLIANCE_KERNEL, else the installed one."""
    path = Path(os.environ.get("APPLIANCE_KERNEL", DEFAULT_KERNEL))
    if not path.exists():
        pytest.fail(f"no guest kernel at {path}; set APPLIANCE_KERNEL", pytrace=False)
    return path


@pytest.fixture(scope="session")
def build_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this session builds what it needs."""
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="session")
def image_tree(build_directory: Path) -> Path:
    """An image's files: no shell, no tools, some of the files in /etc that the runtime covers."""
    tree = build_directory / "tree"
    for name in ("proc", "sys", "dev", "run/service", "tmp", "etc", "usr/bin", "data", "var/lib/state"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (tree / "etc/localtime").write_bytes(b"of the image")
    (tree / "etc/hosts").symlink_to("/run/appliance/hosts")
    _compile(HERE / "prober.c", tree / "usr/bin/prober")
    return tree


@pytest.fixture(scope="session")
def machine(kernel: Path, build_directory: Path, image_tree: Path) -> Machine:
    """Runtime and image, built once."""
    runtime, tools, image = (build_directory / name for name in ("runtime.cpio", "tools.squashfs", "image.squashfs"))
    subprocess.run([RUNTIME_SOURCE / "build", "--output", runtime, "--tools", tools], check=True)
    make_image(image_tree, image)
    return Machine(kernel=kernel, runtime=runtime, tools=tools, image=image)


def make_image(tree: Path, image: Path, *options: str) -> Path:
    """A squashfs owned by root, but for the directories of the service."""
    uid, gid = STATE_OWNER
    owners = [f"{path} m 0750 {uid} {gid}" for path in ("var/lib/state", "run/service", "data")]
    pseudo = [word for owner in owners for word in ("-p", owner)]
    command = ["mksquashfs", tree, image, "-quiet", "-no-progress", "-noappend", "-all-root", *pseudo, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return image


@pytest.fixture
def boot(machine: Machine) -> Iterator[Boot]:
    """A function that starts a guest from a Plan or from the text of one; every guest ends with the test."""
    guests: list[Guest] = []

    def start(plan: Plan | str = Plan(), **options: Any) -> Guest:  # noqa: B008
        text = plan if isinstance(plan, str) else plan.text()
        guest = machine.start(text, **{"config": {}, **options})
        guests.append(guest)
        return guest

    yield start
    for guest in guests:
        guest.destroy()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A fresh data volume, as the agent makes one."""
    volume = tmp_path / "data.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", volume, "8M"], check=True)
    return volume
