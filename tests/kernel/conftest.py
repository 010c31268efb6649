"""A network namespace for each test, with a view of /sys that belongs to it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from agent.host.netlink import Netlink
from tests.fakes.aio import nothing_left_behind, run_coroutine_test
from tests.kernel.links import ip

# sched.h, sys/mount.h
CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x00000200, 0x00020000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(
    source: str,
    target: str,
    kind: str,
    flags: int = MS_NOSUID | MS_NODEV | MS_NOEXEC,
    *,
    options: str = "",
) -> None:
    """mount(2) in this test's own mount namespace."""
    arguments = source.encode(), target.encode(), kind.encode(), flags, options.encode()
    _checked(_libc.mount(*arguments), f"mount {target}")


@contextmanager
def own_namespaces() -> Iterator[None]:
    """Move the process into new network and mount namespaces, and back at the end of the block.

    /sys/class/net shows the network namespace of who mounted it, so it is mounted anew; /proc/sys/net that
    of who looks. The mount namespace keeps the new /sys from everybody else.
    """
    home = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")]
    root, directory = (os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in ("/", "."))
    try:
        _checked(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare")
        try:
            mount("none", "/", "none", MS_REC | MS_PRIVATE)
            mount("sysfs", "/sys", "sysfs")
            yield
        finally:
            # setns(2) into a mount namespace wants a root and a working directory of one's own, and a
            # thread that Python has joined shares them until the kernel, too, is done with it.
            _checked(_libc.unshare(CLONE_FS), "unshare")
            for namespace in home:
                _checked(_libc.setns(namespace, 0), "setns")
            # setns(2) has gone to the root of the namespace, which may lie above ours.
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(directory)
    finally:
        for descriptor in (*home, root, directory):
            os.close(descriptor)


class OtherNetwork:
    """A second network namespace, for what stands at the other end of a cable."""

    def __init__(self) -> None:
        with self._elsewhere(lambda: _checked(_libc.unshare(CLONE_NEWNET), "unshare")):
            self._descriptor = _own_network()

    @property
    def path(self) -> str:
        """For ip(8), in place of a namespace's name."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Give it up; what is in it goes with it."""
        os.close(self._descriptor)

    def entered(self) -> AbstractContextManager[None]:
        """This thread is in it for a block; sockets made there stay there."""
        return self._elsewhere(lambda: _checked(_libc.setns(self._descriptor, CLONE_NEWNET), "setns"))

    @staticmethod
    @contextmanager
    def _elsewhere(go: Callable[[], None]) -> Iterator[None]:
        home = _own_network()
        try:
            go()
            yield
        finally:
            _checked(_libc.setns(home, CLONE_NEWNET), "setns")
            os.close(home)


def _own_network() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _filters_vlans() -> bool:
    """Whether this kernel filters bridges by VLAN."""
    try:
        with own_namespaces():
            argv = ["ip", "link", "add", "try", "type", "bridge", "vlan_filtering", "1"]
            return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vlans: for kernels with CONFIG_BRIDGE_VLAN_FILTERING")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked for another kernel than this one."""
    for_others = [item for item in items if item.get_closest_marker("vlans")]
    if for_others and not _filters_vlans():
        config.hook.pytest_deselected(items=for_others)
        items[:] = [item for item in items if item not in for_others]


@pytest.fixture(scope="session")
def _capable() -> None:
    """Whether links can be made is measured; who one is says little in containers and user namespaces."""
    try:
        with own_namespaces():
            os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        pytest.skip(f"no network namespace or no tun device here: {error}")


@pytest.fixture(autouse=True)
def _namespaces(_capable: None) -> Iterator[None]:
    with nothing_left_behind(), own_namespaces():
        yield


@pytest.fixture
def net() -> Iterator[Netlink]:
    """What makes and reads links."""
    found = Netlink()
    yield found
    found.close()


@pytest.fixture
def cable() -> Iterator[OtherNetwork]:
    """The interface eth1, with a cable to another machine."""
    other = OtherNetwork()
    ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", other.path)
    yield other
    other.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    return run_coroutine_test(pyfuncitem)
