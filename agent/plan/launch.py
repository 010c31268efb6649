"""The launch plan: what /usr/lib/appliance/launch opens, checks and executes for one appliance.

One directive on a line, read by agent/launcher/launch.c, line by line:

    image SHA256 PATH          verify that the file is the one that was imported (its stamp lies beside it)
    tap NAME                   attach to this tap; its descriptor becomes {tap0}, {tap1} … in order
    exec PATH                  the guest kernel
    arg TEXT                   one argument, in order; {notify} and {tapN} stand for descriptor numbers
    refuse TEXT                do not start; say why

Kernel options are documented in Documentation/virt/uml/user_mode_linux_howto_v2.rst and `linux --help`.
"""

from __future__ import annotations

from agent.model.appliance import Appliance, Isolation
from agent.model.image import Image
from agent.model.network import Port

HEADER = "# Launch plan, written by appliance-agent; read by /usr/lib/appliance/launch."
TOOLS = "/usr/lib/appliance/tools.squashfs"
"""Static busybox for the scripts of images, shared by all guests."""


def runtime_directory(instance: str) -> str:
    """`/run/appliance/NAME`, owned by root."""
    return f"/run/appliance/{instance}"


def management_console(instance: str) -> str:
    """The guest's mconsole socket, in a directory its own user may write to."""
    return f"{runtime_directory(instance)}/uml/guest/mconsole"


def kernel_arguments(
    appliance: Appliance,
    image: Image,
    ports: tuple[Port, ...],
    *,
    instance: str,
    memory_bytes: int,
    initrd: str,
    data_volume: str,
    loops_per_jiffy: int,
    names: str = "",
) -> list[str]:
    """The boot command line. `instance` is that of the unit; `data_volume` and `names`, the disk with the
    names of neighbours, are paths, or '' for a guest that has none."""
    arguments = [
        f"mem={memory_bytes >> 10}K",
        "rdinit=/init",
        f"initrd={initrd}",
        f"ubd0r={image.path}",
        f"ubd2r={TOOLS}",
        *([f"ubd1={data_volume}"] if data_volume else []),
        *([f"ubd3r={names}"] if names else []),
        "quiet",
        # A stop request that comes before the guest can take it ends it, and does not make it boot again.
        "noreboot",
        # Skips the delay calibration: 40 ms of every start.
        f"lpj={loops_per_jiffy}",
        "con=null",
        "con0=null,fd:1",
        "ssl=null",
        "ssl0=fd:{notify}",
        f"uml_dir={runtime_directory(instance)}/uml/",
        "umid=guest",
        f"seccomp={'on' if appliance.isolation is Isolation.FAST else 'off'}",
    ]
    # vec=0: with recvmmsg on a tun descriptor nothing arrives.
    arguments += [
        f"vec{port.index}:transport=fd,fd={{tap{port.index}}},vec=0,mac={port.mac}" for port in ports
    ]
    return arguments


def render_launch_plan(
    appliance: Appliance, image: Image, ports: tuple[Port, ...], arguments: list[str]
) -> str:
    """The plan of an appliance that can start."""
    lines = [f"image {image.digest.hex} {image.path}"]
    lines += [f"tap {port.tap}" for port in ports]
    lines += [f"exec {appliance.kernel}"]
    lines += [f"arg {argument}" for argument in arguments]
    return "\n".join([HEADER, *lines, ""])


def render_refusal(reason: str) -> str:
    """The plan of an appliance that cannot start: the unit fails with `reason` in its own journal."""
    return f"{HEADER}\nrefuse {' '.join(reason.split())}\n"
