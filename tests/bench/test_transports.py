"""What each way to connect a guest to its host carries, beside two network namespaces on the same bridge.

Guests are started directly, without a host of the lab.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.appliance import Isolation
from tests.bench.report import Report
from tests.bench.traffic import packets, tcp, tcp_results, tcp_script
from tests.bench.transports import FAR, HOST_CORE, NEAR, Appliance, Transport, bench_host, on_core

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNS = 9
PLAIN = "namespaces"
TO_GUEST, FROM_GUEST = "TCP host to guest", "TCP guest to host"
BETWEEN = "TCP guest to guest"
PACKETS = {
    "to": "64-byte packets, host to guest",
    "from": "64-byte packets, guest to host",
    "ask": "64-byte questions answered",
}
"""By the word for them in packets.c."""


@pytest.fixture(scope="module")
def packets_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("packets") / "packets"
    options = ["-std=c17", "-D_GNU_SOURCE", "-static", "-s", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["musl-gcc", *options, "-o", program, HERE / "packets.c"], check=True)
    return program


@pytest.fixture(scope="module")
def appliance(kernel: Path, tmp_path_factory: pytest.TempPathFactory, packets_program: Path) -> Appliance:
    built = tmp_path_factory.mktemp("runtime")
    runtime, tools = built / "runtime.cpio", built / "tools.squashfs"
    subprocess.run([ROOT / "agent/guest/build", "--output", runtime, "--tools", tools], check=True)
    return Appliance(
        kernel=kernel,
        runtime=runtime,
        tools=tools,
        image=Path(output(ROOT / "packaging/images", "tests/bench/iperf3.yaml")),
        memory="64M",
        packets=packets_program,
    )


@pytest.fixture(scope="module")
def kernel() -> Path:
    return Path(os.environ.get("APPLIANCE_KERNEL", "/usr/lib/appliance/linux"))


def output(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout.strip()


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with bench_host():
        yield


def test_transport_namespaces(appliance: Appliance, report: Report) -> None:
    with appliance.namespace():
        measure(appliance, report, PLAIN)


@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize("transport", Transport)
def test_transport(appliance: Appliance, report: Report, transport: Transport, isolation: Isolation) -> None:
    with appliance.guest(transport, isolation):
        measure(appliance, report, f"{transport} {isolation}")


def test_transport_between_namespaces(appliance: Appliance, report: Report) -> None:
    with appliance.namespace(), appliance.namespace(NEAR) as near, near.entered(), on_core(HOST_CORE):
        tcp(FAR.address)
        report.add(BETWEEN, PLAIN, "Gbit/s", [tcp(FAR.address) for _ in range(RUNS)])


@pytest.mark.parametrize("isolation", Isolation)
def test_transport_between_guests(appliance: Appliance, report: Report, isolation: Isolation) -> None:
    """Of the transport in use."""
    script = tcp_script(FAR.address, RUNS)
    with (
        appliance.guest(Transport.FD, isolation),
        appliance.guest(Transport.FD, isolation, NEAR, script) as client,
    ):
        client.wait_until(lambda: len(tcp_results(client.text)) >= RUNS)
        report.add(BETWEEN, f"{Transport.FD} {isolation}", "Gbit/s", tcp_results(client.text))


def measure(appliance: Appliance, report: Report, candidate: str) -> None:
    with on_core(HOST_CORE):
        tcp(FAR.address)
        for what, backwards in ((TO_GUEST, False), (FROM_GUEST, True)):
            rates = [tcp(FAR.address, backwards=backwards) for _ in range(RUNS)]
            report.add(what, candidate, "Gbit/s", rates)
        for word, what in PACKETS.items():
            found = [packets(appliance.packets, word, FAR.address) for _ in range(RUNS)]
            report.add(what, candidate, "1000/s", [rate for rate, _ in found])
            if any(lost >= 0.1 for _, lost in found):
                report.add(f"{what}: lost", candidate, "%", [lost for _, lost in found])
