"""Stopping: the request's bytes, whom they reach, and what happens where nobody listens."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent import stop

PATH = Path(__file__).parents[2] / "agent/stop.py"


@pytest.mark.parametrize("command", [b"cad", b"version", b""])
def test_a_request_is_struct_mconsole_request(command: bytes) -> None:
    # arch/um/drivers/mconsole.h: u32 magic, u32 version, u32 len, char data[512]
    magic, version, length, data = struct.unpack("<III512s", stop.request(command))
    assert (magic, version, length) == (0xCAFEBABE, 2, len(command))
    assert data.rstrip(b"\0") == command


def test_a_unit_without_a_main_process_has_nothing_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAINPID", raising=False)
    monkeypatch.setattr(sys, "argv", ["stop", "dns"])
    stop.main()


def test_a_guest_that_cannot_be_asked_is_said_to_be_killed() -> None:
    environment = {"MAINPID": str(os.getpid())}
    command = [sys.executable, "-ISs", str(PATH), "no-such-appliance"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == "<4>Cannot ask the guest to stop: No such file or directory; it will be killed.\n"


def test_it_asks_and_waits_until_the_guest_is_gone(tmp_path: Path) -> None:
    """Its own program, with a directory of ours where the guests' sockets are."""
    program = tmp_path / "stop"
    program.write_text(PATH.read_text("utf-8").replace('f"/run/appliance/', f'f"{tmp_path}/'))
    (tmp_path / "dns/uml/guest").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as console:
        console.bind(str(tmp_path / "dns/uml/guest/mconsole"))
        console.settimeout(10)
        with subprocess.Popen(["sleep", "60"]) as guest:
            environment = {"MAINPID": str(guest.pid)}
            with subprocess.Popen([sys.executable, "-ISs", program, "dns"], env=environment) as stopping:
                assert console.recv(1024) == stop.request(b"cad")
                assert stopping.poll() is None
                guest.kill()
                assert stopping.wait(10) == 0
