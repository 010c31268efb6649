"""From the boot plan to READY=1: what a guest finds when its service starts."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.guest.uml import FOREVER, Boot, Plan, make_image


def test_ready_without_conditions_is_when_the_service_was_executed(boot: Boot) -> None:
    guest = boot(Plan())
    guest.wait_ready()
    assert guest.statuses == ["starting sh", "running"]


def test_ready_comes_with_the_status_in_one_datagram(boot: Boot) -> None:
    guest = boot(Plan())
    guest.wait_ready()
    assert "READY=1\nSTATUS=running" in guest.datagrams


def test_phases_are_reported_in_order(boot: Boot) -> None:
    guest = boot(Plan(prepare="echo preparing", check="echo checking", exec=f"echo serving; {FOREVER}"))
    guest.wait_ready()
    assert guest.statuses == ["preparing", "checking configuration", "starting sh", "running"]
    guest.wait_line("serving")
    assert [line for line in guest.lines if not line.startswith("<")] == ["preparing", "checking", "serving"]


def test_a_guest_that_lives_until_its_check_has_succeeded(boot: Boot) -> None:
    guest = boot(
        Plan(
            prepare="echo rendered > /data/zones",
            check="cat /data/zones",
            exec="echo serving",
            more=["until=check", "tmpfs=/data"],
        )
    )
    assert guest.wait_end() == 0, guest.describe()
    assert guest.statuses[:2] == ["preparing", "checking configuration"]
    assert "rendered" in guest.lines
    assert "serving" not in guest.lines
    assert not guest.is_ready


def test_nor_does_it_serve_where_there_is_nothing_to_check(boot: Boot) -> None:
    guest = boot(Plan(exec="echo serving", more=["until=check"]))
    assert guest.wait_end() == 0, guest.describe()
    assert "serving" not in guest.lines


def test_start_is_summed_up_in_one_line(boot: Boot) -> None:
    guest = boot(Plan())
    guest.wait_text("<6>ready after ")


def test_ready_when_udp_port_is_bound(boot: Boot) -> None:
    guest = boot(Plan(exec="usleep 200000; echo binding; exec prober udp 53", more=["ready=udp 53"]))
    guest.wait_ready()
    assert "binding" in guest.lines


def test_ready_when_tcp_port_listens(boot: Boot) -> None:
    guest = boot(Plan(exec="usleep 200000; echo listening; exec httpd -f -p 80 -h /", more=["ready=tcp 80"]))
    guest.wait_ready()
    assert "listening" in guest.lines


def test_ready_when_the_service_notifies(boot: Boot) -> None:
    command = f"usleep 100000; prober send $NOTIFY_SOCKET 'STATUS=two zones\\nREADY=1'; {FOREVER}"
    guest = boot(Plan(exec=command, more=["ready=notify"]))
    guest.wait_ready()
    assert "READY=1\nSTATUS=two zones" in guest.datagrams


def test_ready_when_the_command_succeeds(boot: Boot) -> None:
    service = f"usleep 200000; > /tmp/up; {FOREVER}"
    guest = boot(Plan(exec=service, ready_exec="test -e /tmp/up", more=["ready=exec"]))
    guest.wait_ready()


def test_ready_needs_every_condition(boot: Boot) -> None:
    command = "httpd -p 80 -h /; usleep 100000; echo binding; exec prober udp 53"
    guest = boot(Plan(exec=command, more=["ready=tcp 80", "ready=udp 53"]))
    guest.wait_ready()
    assert "binding" in guest.lines


def test_image_root_and_mounts(boot: Boot) -> None:
    script = "while read d p t o r; do echo $p $t ${o%%,*}; done < /proc/mounts; echo done; sleep 1000"
    guest = boot(Plan(exec=script, more=["tmpfs=/var/lib/state"]))
    guest.wait_line("done")
    assert {line for line in guest.lines if line.startswith("/")} == {
        "/ squashfs ro",
        "/dev devtmpfs rw",
        "/proc proc rw",
        "/sys sysfs rw",
        "/dev/pts devpts rw",
        "/dev/shm tmpfs rw",
        "/run tmpfs rw",
        "/tmp tmpfs rw",
        "/var/lib/state tmpfs rw",
        "/run/appliance rootfs rw",
        "/run/appliance/config rootfs ro",
        "/run/appliance/bin squashfs ro",
        "/etc/resolv.conf rootfs rw",
    }


def test_tmpfs_keeps_owner_and_mode_and_directories(boot: Boot) -> None:
    script = """
        stat -c '%n %u %g %a' /var/lib/state /run/service
        > /var/lib/state/x && echo writable
        sleep 1000
    """
    guest = boot(Plan(exec=script, more=["tmpfs=/var/lib/state", "tmpfs=/run"]))
    guest.wait_line("writable")
    assert {"/var/lib/state 123 456 750", "/run/service 123 456 750"} <= set(guest.lines)


def test_configuration_files_are_there_and_read_only(boot: Boot) -> None:
    script = """
        cd /run/appliance/config
        cat zones/example.test
        touch new || echo refused
        sleep 1000
    """
    guest = boot(Plan(exec=script), config={"zones/example.test": b"a zone\n"})
    guest.wait_line("refused")
    assert "a zone" in guest.lines


def test_identity(boot: Boot) -> None:
    script = """
        hostname
        cat /run/appliance/hostname /run/appliance/hosts /etc/resolv.conf /etc/hosts /etc/localtime
        sleep 1000
    """
    more = ["nameserver=10.88.0.1", "search=example.test", "search=example.org", "host=10.88.0.53 guest"]
    guest = boot(Plan(exec=script, more=more), localtime=b"TZif\n")
    guest.wait_line("TZif")
    hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", "10.88.0.53 guest"]
    resolv = ["nameserver 10.88.0.1", "search example.test example.org"]
    seen = [line for line in guest.lines if not line.startswith("<")]
    assert seen == ["guest", "guest", *hosts, *resolv, *hosts, "TZif"]


def test_local_time_of_the_image_stays_without_another(boot: Boot) -> None:
    guest = boot(Plan(exec=f'echo "$(cat /etc/localtime)"; {FOREVER}'))
    guest.wait_line("of the image")


def test_environment_of_the_service(boot: Boot) -> None:
    plan = Plan(exec=["/run/appliance/bin/env"], more=["environment=TZ=UTC", "environment=LANG=de_DE.UTF-8"])
    guest = boot(plan)
    assert guest.wait_end() == 87
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/appliance/bin"
    seen = [line for line in guest.lines if line[:1].isupper()]
    assert seen == ["TZ=UTC", "LANG=de_DE.UTF-8", path, "HOME=/"]


def test_process_of_the_service(boot: Boot) -> None:
    script = """
        read pid name state ppid pgrp session rest < /proc/$$/stat
        echo session $((session == pid))
        grep -E '^Sig(Blk|Ign)' /proc/self/status
        umask
        ulimit -n
        readlink /proc/self/fd/0
        ls /proc/self/fd | wc -l
        prober random && echo random
        sleep 1000
    """
    guest = boot(Plan(exec=script))
    guest.wait_line("random")
    seen = [line for line in guest.lines if not line.startswith("<")]
    no_signal = "0000000000000000"
    signals = [f"SigBlk:\t{no_signal}", f"SigIgn:\t{no_signal}"]
    # Four descriptors: ls reads the directory through one.
    assert seen == ["session 1", *signals, "0022", "1024", "/dev/null", "4", "random"]


def test_a_guest_cannot_restart_itself(boot: Boot) -> None:
    guest = boot(Plan(exec=f"reboot -f || echo refused; {FOREVER}"))
    guest.wait_line("refused")


def test_addresses_and_routes(boot: Boot) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    more = ["mtu=vec0 1400", "address=vec0 10.88.0.53/24", "address=vec0 fd12::35/64"]
    more += ["gateway=10.88.0.1", "gateway=fd12::1"]
    script = f"ip addr; ip route; ip -6 route; echo done; {FOREVER}"
    with ours, theirs:
        guest = boot(Plan(exec=script, more=more), devices=[theirs])
        guest.wait_line("done")
    for text in (
        "inet 127.0.0.1/8",
        "inet6 ::1/128",
        "mtu 1400",
        "inet 10.88.0.53/24 brd 10.88.0.255 scope global vec0",
        "inet6 fd12::35/64 scope global",
        "default via 10.88.0.1 dev vec0",
        "default via fd12::1 dev vec0",
    ):
        assert text in guest.text
    assert "tentative" not in guest.text


def test_no_ipv6_on_a_device_that_has_no_ipv6_address(boot: Boot) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    plan = Plan(exec=f"ip -6 addr show dev vec0; echo done; {FOREVER}", more=["address=vec0 10.88.0.53/24"])
    with ours, theirs:
        guest = boot(plan, devices=[theirs])
        guest.wait_line("done")
    assert "inet6" not in guest.text


def test_data_volume_takes_the_owner_of_its_mount_point(boot: Boot, data: Path) -> None:
    guest = boot(Plan(exec=f"stat -c '%u %g %a' /data; {FOREVER}", more=["data=/data"]), data=data)
    guest.wait_line("123 456 750")


def test_erofs_image(boot: Boot, image_tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.erofs"
    subprocess.run(["mkfs.erofs", "--quiet", image, image_tree], check=True)
    guest = boot(Plan(exec=f"grep ' / ' /proc/mounts; {FOREVER}"), image=image)
    guest.wait_text("/dev/ubda / erofs ro,")


def test_without_a_notify_line_the_service_runs(boot: Boot) -> None:
    guest = boot(Plan(exec=f"echo up; {FOREVER}"), arguments=["ssl0=null"])
    guest.wait_line("up")
    guest.wait_text("<6>ready after ")
    assert guest.datagrams == []


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not-cached"])
def test_image_is_read_whole(boot: Boot, image_tree: Path, tmp_path: Path, cached: bool) -> None:
    """What the host has in its page cache comes another way than what it has not."""
    content = random.Random(1).randbytes(1 << 20)
    tree = shutil.copytree(image_tree, tmp_path / "tree", symlinks=True)
    (tree / "usr/content").write_bytes(content)
    image = make_image(tree, tmp_path / "image.squashfs")
    with image.open("rb") as file:
        os.fsync(file)
        if not cached:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with pytest.raises(BlockingIOError):
                os.preadv(file.fileno(), [bytearray(1)], image.stat().st_size // 2, os.RWF_NOWAIT)
    guest = boot(Plan(exec="sha256sum /usr/content"), image=image)
    guest.wait_end()
    assert f"{hashlib.sha256(content).hexdigest()}  /usr/content" in guest.lines, guest.describe()
