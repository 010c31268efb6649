"""What ends a guest: each way has an exit status, one line at priority 3 and a STATUS= with the reason."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.guest.uml import UNTIL_SIGNALLED, Boot, Guest, Machine, Plan, make_image


def _fails(guest: Guest, status: int, reason: str) -> None:
    assert guest.wait_end() == status, guest.describe()
    assert f"<3>{reason}" in guest.lines, guest.describe()
    assert guest.statuses[-1] == reason
    assert not guest.is_ready


@pytest.mark.parametrize(
    ("boot_plan", "reason"),
    [
        ("", "boot plan line 1: expected 'interface=VERSION', found ''"),
        (
            "interface=2\nfuture=x\n",
            "boot plan line 1: interface '2' is not supported, this runtime speaks 1",
        ),
        (Plan(more=["colour=blue"]).text, "boot plan line 5: unknown key 'colour'"),
    ],
)
def test_bad_boot_plan(boot: Boot, boot_plan: str, reason: str) -> None:
    _fails(boot(boot_plan), 81, reason)


def test_image_of_no_known_type(boot: Boot, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(65536))
    _fails(boot(image=image), 82, "the image is neither squashfs nor erofs")


def test_truncated_image(boot: Boot, machine: Machine, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(machine.image.read_bytes()[:4096])
    _fails(boot(image=image), 82, "cannot mount the image (squashfs): Invalid argument")


def test_image_without_a_needed_directory(boot: Boot, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("var/lib/state", "run/service", "data"):
        (tree / name).mkdir(parents=True)
    image = make_image(tree, tmp_path / "image")
    _fails(boot(image=image), 82, "cannot move /dev into the image: No such file or directory")


def test_tmpfs_on_a_missing_directory(boot: Boot) -> None:
    guest = boot(Plan(more=["tmpfs=/var/cache/x"]))
    _fails(guest, 82, "the image has no directory /var/cache/x: No such file or directory")


def test_data_volume_that_is_no_ext4(boot: Boot, tmp_path: Path) -> None:
    volume = tmp_path / "data.img"
    volume.write_bytes(bytes(1 << 20))
    guest = boot(Plan(more=["data=/data"]), data=volume)
    _fails(guest, 83, "cannot mount the data volume on /data: Invalid argument")


def test_data_volume_that_is_not_there(boot: Boot) -> None:
    guest = boot(Plan(more=["data=/data"]))
    assert guest.wait_end() == 83


def test_network_device_that_is_not_there(boot: Boot) -> None:
    guest = boot(Plan(more=["address=vec3 10.88.0.53/24"]))
    assert guest.wait_end() == 84


def test_gateway_out_of_reach(boot: Boot) -> None:
    guest = boot(Plan(more=["gateway=10.88.0.1"]))
    _fails(guest, 84, "network: gateway 10.88.0.1: Network unreachable")


def test_prepare_fails(boot: Boot) -> None:
    guest = boot(Plan(prepare="echo working; echo no zones >&2; exit 2"))
    _fails(guest, 85, "prepare failed: no zones")
    assert guest.lines.index("working") < guest.lines.index("no zones")


def test_prepare_missing(boot: Boot) -> None:
    guest = boot(Plan(prepare=["/usr/lib/appliance/prepare"]))
    _fails(guest, 85, "prepare failed: cannot run /usr/lib/appliance/prepare: No such file or directory")


def test_prepare_hangs(boot: Boot) -> None:
    guest = boot(Plan(prepare="sleep 1000", more=["ready-timeout-ms=200"]))
    _fails(guest, 85, "prepare failed: not done 200 ms after the start")


def test_check_fails_and_the_service_is_not_started(boot: Boot) -> None:
    guest = boot(Plan(check="exit 1", exec="echo started"))
    _fails(guest, 86, "check failed: exit status 1")
    assert "started" not in guest.lines


def test_a_guest_that_lives_until_its_check_fails(boot: Boot) -> None:
    guest = boot(Plan(check="echo no zones >&2; exit 1", exec="echo started", more=["until=check"]))
    _fails(guest, 86, "check failed: no zones")
    assert "started" not in guest.lines


def test_check_is_killed(boot: Boot) -> None:
    guest = boot(Plan(check="kill -SEGV $$"))
    _fails(guest, 86, "check failed: killed by signal 11 (Segmentation fault)")


def test_service_missing(boot: Boot) -> None:
    _fails(boot(Plan(exec=["/usr/sbin/nsd"])), 87, "cannot run /usr/sbin/nsd: No such file or directory")


def test_service_ends_before_it_is_ready(boot: Boot) -> None:
    guest = boot(Plan(exec="exit 0", more=["ready=udp 53"]))
    _fails(guest, 87, "sh ended before it was ready: exit status 0")


def test_service_ends(boot: Boot) -> None:
    guest = boot(Plan(exec="usleep 300000; exit 4"))
    guest.wait_ready()
    assert guest.wait_end() == 87
    assert "<3>sh ended: exit status 4" in guest.lines
    assert guest.statuses[-1] == "sh ended: exit status 4"


def test_service_is_killed(boot: Boot) -> None:
    guest = boot(Plan(exec="usleep 300000; kill -9 $$"))
    assert guest.wait_end() == 87
    assert guest.statuses[-1] == "sh ended: killed by signal 9 (Killed)"


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(more=["ready=tcp 80"]), "nothing is bound to port 80/tcp"),
        (Plan(more=["ready=notify"]), "sh has not sent READY=1"),
        (Plan(ready_exec="echo not yet; exit 1", more=["ready=exec"]), "not yet"),
    ],
)
def test_never_ready(boot: Boot, plan: Plan, reason: str) -> None:
    timeout = Plan(exec=plan.exec, ready_exec=plan.ready_exec, more=[*plan.more, "ready-timeout-ms=300"])
    _fails(boot(timeout), 88, f"sh was not ready within 300 ms: {reason}")


def test_a_service_that_was_never_ready_is_still_stopped_cleanly(boot: Boot) -> None:
    service = "trap 'echo bye; exit 0' TERM;" + UNTIL_SIGNALLED
    guest = boot(Plan(exec=service, more=["ready=udp 53", "ready-timeout-ms=200"]))
    assert guest.wait_end() == 88
    assert "bye" in guest.lines


def test_kernel_panic_ends_the_guest_at_once(boot: Boot) -> None:
    guest = boot(Plan(exec="usleep 200000; echo c > /proc/sysrq-trigger"))
    guest.wait_ready()
    assert guest.wait_end() == -signal.SIGABRT
    assert "Kernel panic - not syncing" in guest.text


def test_death_of_init_ends_the_guest_at_once(boot: Boot) -> None:
    # No signal from inside kills init, so its stack is overwritten.
    script = """
        stack=$(grep -F '[stack]' /proc/1/maps)
        from=0x${stack%%-*} to=${stack#*-} to=0x${to%% *}
        first=$((from / 4096)) pages=$(((to - from) / 4096))
        dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$first count=$pages conv=notrunc
        sleep 1000
    """
    guest = boot(Plan(exec=script))
    assert guest.wait_end() == -signal.SIGABRT
    assert "Attempted to kill init" in guest.text
