"""The runtime under test, a small image for it, and guests that never outlive their test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Unpack

import pytest

from agent.host.store import ImageStore
from agent.model.image import Image
from tests.guest.images import build_recipe
from tests.guest.uml import Boot, Guest, Machine, Options, Plan, make_image

HERE = Path(__file__).parent
RUNTIME_SOURCE = HERE.parents[1] / "agent/guest"
DEFAULT_KERNEL = "/usr/lib/appliance/linux"


@pytest.fixture(scope="session")
def kernel() -> Path:
    """The guest kernel: $APPLIANCE_KERNEL, else the installed one."""
    path = Path(os.environ.get("APPLIANCE_KERNEL", DEFAULT_KERNEL))
    if not path.exists():
        pytest.fail(f"no guest kernel at {path}; set APPLIANCE_KERNEL", pytrace=False)
    return path


@pytest.fixture(scope="session")
def build_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run builds what it needs."""
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
    for name in ("prober", "traps", "registers"):
        program = tree / "usr/bin" / name
        options = ["-D_GNU_SOURCE", "-static", "-s", "-Os"]
        subprocess.run(["musl-gcc", *options, "-o", program, HERE / f"{name}.c"], check=True)
    return tree


@pytest.fixture(scope="session")
def machine(kernel: Path, build_directory: Path, image_tree: Path) -> Machine:
    """Runtime and image, built once."""
    runtime, tools = build_directory / "runtime.cpio", build_directory / "tools.squashfs"
    subprocess.run([RUNTIME_SOURCE / "build", "--output", runtime, "--tools", tools], check=True)
    image = make_image(image_tree, build_directory / "image.squashfs")
    return Machine(kernel=kernel, runtime=runtime, tools=tools, image=image)


@pytest.fixture(scope="session")
def prober(image_tree: Path) -> bytes:
    """The tests' own program, for images that lack it."""
    return (image_tree / "usr/bin/prober").read_bytes()


@pytest.fixture
def boot(machine: Machine) -> Iterator[Boot]:
    """A function that starts a guest; every guest ends with the test."""
    guests: list[Guest] = []

    def start(plan: Plan | str = Plan(), **options: Unpack[Options]) -> Guest:  # noqa: B008
        guests.append(machine.start(plan, **options))
        return guests[-1]

    yield start
    for guest in guests:
        guest.destroy()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A fresh data volume, as the agent makes one."""
    volume = tmp_path / "data.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", volume, "8M"], check=True)
    return volume


@pytest.fixture(scope="session")
def packages_cache() -> Iterator[None]:
    """Fetched packages are kept with everything else that is expensive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.environ.get("APPLIANCE_CACHE", "/var/cache/appliance-build"))
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield


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
