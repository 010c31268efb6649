"""Examines whether this host can run appliances: each finding with its remedy. Changes nothing."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.host.facts import systemd_version
from agent.host.kernel import why_unfit
from agent.model.appliance import KERNEL
from agent.model.errors import HostError
from agent.model.host import OPEN_FILE_VERSION
from agent.model.paths import Paths
from agent.util.run import run

OLDEST_SYSTEMD = 252
_MEMORY_FOR_ONE_BYTES = 64 << 20
_RULES = b"""
table bridge doctor { chain a { type filter hook prerouting priority -200; ether type ip accept; }; }
table inet doctor { chain a { type nat hook postrouting priority 100; ct status dnat masquerade; }; }
"""


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Fitness:
    """What was found about one subject; `remedy` is empty where there is nothing to do."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


def examine() -> list[Fitness]:
    """Everything, in the order in which a start would meet it."""
    checks: tuple[Callable[[], Fitness], ...] = (
        _architecture,
        _systemd,
        _agent_unit,
        _guest_kernel,
        _tun,
        _memory_files,
        _ptrace,
        _memory_limits,
        _free_memory,
        _free_space,
        _firewall,
        _tools,
    )
    return [check() for check in checks]


def _ok(subject: str, text: str) -> Fitness:
    return Fitness(subject, Verdict.OK, text)


def _architecture() -> Fitness:
    machine = platform.machine()
    if machine == "x86_64":
        return _ok("architecture", machine)
    return Fitness("architecture", Verdict.FAILED, machine, "User-Mode Linux runs on x86-64 only.")


def _systemd() -> Fitness:
    if not Path("/run/systemd/system").is_dir():
        return Fitness(
            "systemd", Verdict.FAILED, "it is not the init system here", "Boot this host with systemd."
        )
    version = systemd_version()
    if version < OLDEST_SYSTEMD:
        return Fitness(
            "systemd", Verdict.FAILED, f"version {version}", f"Version {OLDEST_SYSTEMD} or later is needed."
        )
    if version < OPEN_FILE_VERSION:
        remedy = (
            f"Before {OPEN_FILE_VERSION}, guests share the host's network namespace, without rights in it."
        )
        return Fitness("systemd", Verdict.WARNING, f"version {version}", remedy)
    return _ok("systemd", f"version {version}")


def _agent_unit() -> Fitness:
    try:
        state = (
            run(["systemctl", "show", "--property=ActiveState", "--value", "appliance-agent.service"])
            .decode()
            .strip()
        )
    except HostError as error:
        remedy = error.remedy or "Boot this host with systemd."
        return Fitness("agent", Verdict.FAILED, error.message, remedy)
    if state == "active":
        return _ok("agent", "running")
    return Fitness(
        "agent", Verdict.FAILED, state, "`systemctl status appliance-agent` shows why it does not run."
    )


def _guest_kernel() -> Fitness:
    wrong = why_unfit(KERNEL)
    if not wrong:
        return _ok("guest kernel", KERNEL)
    return Fitness("guest kernel", Verdict.FAILED, wrong, "Install the package appliance-kernel.")


def _tun() -> Fitness:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
        if systemd_version() < OPEN_FILE_VERSION and not os.stat("/dev/net/tun").st_mode & stat.S_IWOTH:
            # udev makes it so; taps have owners, so nobody gains anything by it.
            remedy = (
                f"The guest's user opens it before systemd {OPEN_FILE_VERSION}: `chmod 0666 /dev/net/tun`."
            )
            return Fitness("tun", Verdict.FAILED, "/dev/net/tun is for root only", remedy)
    except OSError as error:
        remedy = "Load the module (`modprobe tun`); in a container, have /dev/net/tun passed in."
        if isinstance(error, PermissionError):
            remedy = "Run doctor as root; in a container, have the device allowed."
        return Fitness("tun", Verdict.FAILED, f"/dev/net/tun: {error.strerror}", remedy)
    return _ok("tun", "/dev/net/tun opens")


def _memory_files() -> Fitness:
    """A tmpfs of its own is mounted for each guest's memory; all it takes is that tmpfs may be mounted."""
    if "\ttmpfs\n" in Path("/proc/filesystems").read_text(encoding="ascii"):
        return _ok("guest memory", "tmpfs is there; each unit mounts its own, with execution allowed")
    return Fitness("guest memory", Verdict.FAILED, "no tmpfs", "The host's kernel lacks CONFIG_TMPFS.")


def _ptrace() -> Fitness:
    """UML traces its own children, which Yama allows to everybody up to scope 1
    (Documentation/admin-guide/LSM/Yama.rst)."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    value = scope.read_text(encoding="ascii").strip() if scope.exists() else "0"
    if value == "3":
        remedy = "Boot with kernel.yama.ptrace_scope at 1 or less, or set `isolation: fast` everywhere."
        return Fitness("ptrace", Verdict.FAILED, "forbidden by Yama (ptrace_scope is 3)", remedy)
    if value == "2":
        remedy = "Set kernel.yama.ptrace_scope to 1 or less, or `isolation: fast` everywhere."
        return Fitness("ptrace", Verdict.FAILED, "for administrators only (ptrace_scope is 2)", remedy)
    return _ok("ptrace", f"allowed (Yama ptrace_scope {value})")


def _memory_limits() -> Fitness:
    """Whether MemoryMax= bites: the memory controller has to be in systemd's hands."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        there = "memory" in unified.read_text(encoding="ascii").split()
    else:
        there = Path("/sys/fs/cgroup/memory").is_dir()
    if there:
        return _ok("memory limits", "the memory controller is available")
    remedy = "MemoryMax= has no effect; boot with cgroup_enable=memory, or delegate the controller."
    return Fitness("memory limits", Verdict.WARNING, "no memory controller", remedy)


def _free_memory() -> Fitness:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    )
    free_bytes = int(fields["MemAvailable"].split()[0]) << 10
    text = f"{free_bytes >> 20} MiB available"
    if free_bytes >= _MEMORY_FOR_ONE_BYTES:
        return _ok("memory", text)
    return Fitness("memory", Verdict.WARNING, text, "An appliance takes 32 MiB and more.")


def _free_space() -> Fitness:
    state = Paths().state
    if not state.is_dir():
        return Fitness(
            "disk", Verdict.FAILED, f"{state} is missing", "Install the package appliance-agent anew."
        )
    found = os.statvfs(state)
    free_bytes = found.f_bavail * found.f_frsize
    text = f"{free_bytes >> 20} MiB free in {state}"
    if free_bytes >= _MEMORY_FOR_ONE_BYTES:
        return _ok("disk", text)
    return Fitness("disk", Verdict.WARNING, text, "`appliancectl image list` shows what images take.")


def _firewall() -> Fitness:
    """Whether rules such as the agent's can be loaded; none are."""
    try:
        run(["nft", "--check", "--file", "-"], stdin=_RULES)
    except HostError as error:
        remedy = (
            "Run doctor as root; install nftables; the host's kernel needs nf_tables for bridge and inet."
        )
        return Fitness("firewall", Verdict.FAILED, error.message, remedy)
    return _ok("firewall", "nftables takes rules")


def _tools() -> Fitness:
    names = ("mkfs.ext4", "e2fsck", "resize2fs", "unsquashfs", "systemd-sysusers", "ss")
    path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    missing = [name for name in names if not any(os.access(f"{folder}/{name}", os.X_OK) for folder in path)]
    if not missing:
        return _ok("programs", "all there")
    remedy = "Install e2fsprogs, iproute2 and squashfs-tools."
    return Fitness("programs", Verdict.FAILED, f"missing: {', '.join(missing)}", remedy)
