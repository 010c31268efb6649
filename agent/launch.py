#!/usr/bin/python3 -ISs
"""ExecStart= of appliance@.service: opens what must be opened, then becomes the guest's kernel.

Runs as the appliance's own user inside the unit's sandbox and follows the launch plan
(agent/plan/launch.py). It must start in about ten milliseconds, so it imports only what the interpreter has
built in; everything else costs more than all of its work. Exit status 78 (EX_CONFIG) means that starting
again would not help.
"""

import os
import sys
from fcntl import ioctl

EX_CONFIG = 78
EX_TEMPFAIL = 75
FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002


class RefusalError(Exception):
    """The appliance cannot start; the text is the one line its administrator reads."""

    status = EX_CONFIG


class TapError(RefusalError):
    """The tap is not there, or not free. The agent may be about to restore it: systemd is to try again."""

    status = EX_TEMPFAIL


def read_plan(appliance: str) -> list[tuple[str, str]]:
    """The directives of the launch plan, in order."""
    path = f"/run/appliance/{appliance}/launch"
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise RefusalError(f"{path}: {error.strerror}; `appliancectl apply` writes it") from error
    return [
        (directive, text)
        for directive, _, text in (line.partition(" ") for line in lines)
        if directive != "#"
    ]


def check_image(digest: str, path: str) -> None:
    """Make sure that `path` is the file that was imported.

    Unchanged since its digest was last proven (same inode, size and times) is enough; anything else is
    hashed again.
    """
    try:
        with open(path, "rb") as file:
            now = os.fstat(file.fileno())
            if _stamp(path) == f"{now.st_ino} {now.st_size} {now.st_mtime_ns} {now.st_ctime_ns}":
                return
            from hashlib import file_digest

            if file_digest(file, "sha256").hexdigest() == digest:
                return
    except OSError as error:
        raise RefusalError(f"image {path}: {error.strerror}") from error
    raise RefusalError(f"image {path} is damaged: its content no longer has the digest sha256:{digest}")


def _stamp(path: str) -> str:
    try:
        with open(f"{os.path.dirname(path)}/verified", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def inherited_descriptors() -> dict[str, int]:
    """Descriptors that systemd opened for OpenFile=, by name (systemd 253 and later)."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") if "LISTEN_FDS" in os.environ else []
    return {name: number for number, name in enumerate(names, FIRST_DESCRIPTOR)}


def open_notify(descriptors: dict[str, int]) -> int:
    """A datagram socket connected to systemd's notification socket."""
    if "notify" in descriptors:
        return descriptors["notify"]
    # The C half of `socket`: importing the whole module costs 8 ms of every start.
    from _socket import AF_UNIX, SOCK_DGRAM, socket

    notify = socket(AF_UNIX, SOCK_DGRAM)
    notify.connect(os.environ["NOTIFY_SOCKET"])
    return notify.detach()


def open_tap(descriptors: dict[str, int], index: int, name: str) -> int:
    """A descriptor attached to the tap `name`, which the agent made for this user."""
    try:
        tun = descriptors.get(f"tun{index}", -1)
        if tun < 0:
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        ioctl(tun, TUNSETIFF, name.encode().ljust(16, b"\0") + IFF_TAP_NO_PI.to_bytes(24, "little"))
    except OSError as error:
        text = f"cannot attach to tap {name}: {error.strerror}; `appliancectl apply` restores it"
        raise TapError(text) from error
    return tun


def prepare(plan: list[tuple[str, str]]) -> tuple[list[str], list[int]]:
    """Check and open what the plan names; the kernel's command line, and descriptors it is to inherit."""
    descriptors = inherited_descriptors()
    opened = {"notify": open_notify(descriptors)}
    argv: list[str] = []
    for directive, text in plan:
        match directive:
            case "refuse":
                raise RefusalError(text)
            case "image":
                check_image(*text.split(" ", 1))
            case "tap":
                index = len(opened) - 1
                opened[f"tap{index}"] = open_tap(descriptors, index, text)
            case "exec" | "arg":
                argv.append(fill_in(text, opened))
            case _:
                raise RefusalError(
                    f"launch plan: unknown directive “{directive}”; `appliancectl apply` writes a new one"
                )
    if not argv:
        raise RefusalError("launch plan: no kernel named; `appliancectl apply` writes a new one")
    return argv, list(opened.values())


def fill_in(text: str, opened: dict[str, int]) -> str:
    """Replace {notify}, {tap0} … by descriptor numbers."""
    for name, number in opened.items():
        text = text.replace("{" + name + "}", str(number))
    return text


def become_guest(argv: list[str], inherited: list[int]) -> None:
    """Execute the kernel; does not return."""
    for number in inherited:
        os.set_inheritable(number, True)  # noqa: FBT003 (it takes no keyword)
    try:
        os.execve(argv[0], argv, {"TMPDIR": os.environ["TMPDIR"], "HOME": "/"})
    except OSError as error:
        raise RefusalError(f"kernel {argv[0]}: {error.strerror}") from error


def main() -> None:
    """`launch NAME`."""
    try:
        become_guest(*prepare(read_plan(sys.argv[1])))
    except RefusalError as refusal:
        text = str(refusal).rstrip(".")
        # <3> is LOG_ERR: journald reads the prefix, sd-daemon(3).
        print(f"<3>Cannot start: {text}.", file=sys.stderr)
        if "NOTIFY_SOCKET" in os.environ:
            os.write(open_notify(inherited_descriptors()), f"STATUS={text}".encode())
        sys.exit(refusal.status)


if __name__ == "__main__":
    main()
