"""Runs on the host under test: asks a name server all the time while systemd starts, stops and restarts its
unit.

    probe.py start UNIT ADDRESS RUNS     start to first answer, and duration of the stop, in ms
    probe.py restart UNIT ADDRESS RUNS   longest gap between answers during a restart in ms, and queries lost
    probe.py swap NAME ADDRESS RUNS      the same during swaps to dns-knot and back, and what the agent says

Standard library only; prints one JSON document.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time

NAME = "www.example.test"
START_INTERVAL_S = 0.001
RESTART_INTERVAL_S = 0.002
SETTLE_S = 0.4
GIVE_UP_S = 20.0


class Client:
    """A UDP client that never waits: `ask` sends a query, `answers` are the numbers of those answered by
    now."""

    def __init__(self, address: str) -> None:
        self._address = (address, 53)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
        self._question = labels + b"\0" + struct.pack(">HH", 1, 1)

    def ask(self, number: int) -> None:
        """Send query `number` (modulo 65536)."""
        header = struct.pack(">HHHHHH", number & 0xFFFF, 0, 1, 0, 0, 0)
        with contextlib.suppress(OSError):  # no neighbour, port closed: a lost query like any other
            self._socket.sendto(header + self._question, self._address)

    def answers(self, timeout_s: float) -> list[int]:
        """Numbers of right answers (NOERROR, one record) that arrive within the time."""
        end = time.monotonic() + timeout_s
        found: list[int] = []
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return found
            try:
                data = self._socket.recv(4096)
            except OSError:
                continue
            number, flags, _, records = struct.unpack(">HHHH", data[:8])
            if flags & 0xF == 0 and records:
                found.append(number)


def systemctl(verb: str, unit: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["systemctl", verb, unit])


def measure_start(unit: str, address: str, runs: int) -> dict[str, list[float]]:
    starts, stops = [], []
    for _ in range(runs):
        systemctl("reset-failed", unit).wait()
        client = Client(address)
        begin = time.monotonic()
        process = systemctl("start", unit)
        number = 0
        while not client.answers(START_INTERVAL_S):
            client.ask(number)
            number += 1
            if time.monotonic() - begin > GIVE_UP_S:
                raise SystemExit(f"{unit}: no answer")
        starts.append((time.monotonic() - begin) * 1000)
        process.wait()
        time.sleep(SETTLE_S)
        begin = time.monotonic()
        systemctl("stop", unit).wait()
        stops.append((time.monotonic() - begin) * 1000)
        time.sleep(SETTLE_S)
    return {"start_ms": starts, "stop_ms": stops}


def measure_swap(name: str, address: str, runs: int) -> dict[str, list[float]]:
    gaps, losses, told = [], [], []
    for number in range(runs):
        image = "dns-nsd" if number % 2 else "dns-knot"
        gap, lost = one_change(["appliancectl", "swap", name, image], Client(address))
        gaps.append(gap)
        losses.append(float(lost))
        output = subprocess.run(
            ["appliancectl", "history", name, "--json"], check=True, capture_output=True, text=True
        ).stdout
        told.append(json.loads(output)[-1]["downtime_us"] / 1000)
    return {"gap_ms": gaps, "lost": losses, "told_ms": told}


def measure_restart(unit: str, address: str, runs: int) -> dict[str, list[float]]:
    gaps, losses = [], []
    systemctl("start", unit).wait()
    time.sleep(SETTLE_S)
    for _ in range(runs):
        systemctl("reset-failed", unit).wait()
        gap, lost = one_change(["systemctl", "restart", unit], Client(address))
        gaps.append(gap)
        losses.append(float(lost))
    return {"gap_ms": gaps, "lost": losses}


def one_change(command: list[str], client: Client) -> tuple[float, int]:
    """Ask all the time while a command runs: the longest gap in ms, and how many were lost."""
    number, answered = 0, 0
    process: subprocess.Popen[bytes] | None = None
    begin = last = next_query = time.monotonic()
    longest = 0.0
    end = begin + GIVE_UP_S
    while time.monotonic() < end:
        client.ask(number)
        number += 1
        next_query += RESTART_INTERVAL_S
        for _ in client.answers(max(0.0, next_query - time.monotonic())):
            answered += 1
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        if process is None and last - begin > SETTLE_S:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            longest = 0.0
        elif process is not None and process.poll() is not None:
            # Two settling times after systemctl has returned, this restart is over.
            end = min(end, time.monotonic() + 2 * SETTLE_S)
    answered += len(client.answers(SETTLE_S))
    return longest * 1000, number - answered


def main() -> None:
    verb, unit, address, runs = sys.argv[1:]
    measure = {"start": measure_start, "restart": measure_restart, "swap": measure_swap}[verb]
    print(json.dumps(measure(unit, address, int(runs))))


if __name__ == "__main__":
    main()
