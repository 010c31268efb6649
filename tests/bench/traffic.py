"""Traffic from this host and back, by iperf3 (TCP) and packets.c (UDP). What either says is a figure; where
one fails, the benchmark does."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

IPERF3_PORT = 5201
_DURATION_S, _PACKETS_MS = 1, 400
_TIMEOUT_S = 20.0
_RECEIVED = re.compile(r"([0-9.]+) Mbits/sec +receiver")


def tcp(address: str, *, backwards: bool = False) -> float:
    """Gbit/s that one connection brings to the server there, or from it."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        said = _iperf3(address, *(["--reverse"] if backwards else []))
        if "sum_received" in said.get("end", {}):
            return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9
        # It is not there yet, or still busy with the run before.
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def _iperf3(address: str, *options: str) -> dict[str, Any]:
    command = ["iperf3", "--json", "--client", address, "--time", str(_DURATION_S), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def packets(program: Path, word: str, address: str) -> tuple[float, float]:
    """Thousands of packets a second, and the percentage of them that is lost; `word` is one of packets.c."""
    command = [str(program), word, address, str(_PACKETS_MS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rate, lost, sent = map(float, done.stdout.split())
    return rate / 1e3, 100 * lost / sent


def tcp_script(address: str, runs: int) -> str:
    """Makes a guest the client; what it writes is for `tcp_results`."""
    client = f"/usr/bin/iperf3 --client {address} --time {_DURATION_S} --format m"
    return f"for run in $(seq {runs}); do {client} || exit; done; exec sleep 1000"


def tcp_results(text: str) -> list[float]:
    """Gbit/s of each run so far."""
    return [float(found) / 1e3 for found in _RECEIVED.findall(text)]
