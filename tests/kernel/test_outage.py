"""The outage as clients see it: found where there is one, whatever the network says meanwhile."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address

import pytest

from agent.host.outage import OutageMeter
from agent.model.address import Address
from agent.model.probe import (
    DnsProbe,
    DnsStatus,
    HttpProbe,
    NtpProbe,
    PingProbe,
    Probe,
    SmtpProbe,
    TcpProbe,
    UdpProbe,
)
from tests.kernel.conftest import OtherNetwork
from tests.kernel.links import ip
from tests.kernel.servers import Reply, name_server, silence, tcp_server, udp_server, wait_for_the_end

GUEST, GUEST6 = ip_address("10.99.0.53"), ip_address("fd00:99::53")
PORT = 5353
PAUSE_S = 0.2
SOA = "example.test. 300 IN SOA ns.example.test. hostmaster.example.test. 1 3600 600 86400 300"
DNS = DnsProbe("example.test", port=PORT)


@pytest.fixture(autouse=True)
def _network(_namespaces: None) -> None:
    ip("link", "set", "lo", "up")
    ip("link", "add", "br-test", "type", "bridge")
    ip("link", "set", "br-test", "up")
    for address in ("10.99.0.1/24", "fd00:99::1/64", "10.99.0.53/24", "fd00:99::53/64"):
        ip("address", "add", address, "dev", "br-test", *(["nodad"] if ":" in address else []))


class Measurement:
    """A meter at work; `gap_ms` is there when it was stopped."""

    def __init__(self, meter: OutageMeter) -> None:
        self._meter = meter
        self.gap_ms: float | None = None

    def wait_answer(self) -> None:
        """Until there is another good answer."""
        last, end = self._meter._last, time.monotonic() + 20
        while self._meter._last == last:
            assert time.monotonic() < end, "no answer"
            time.sleep(0.01)


@contextmanager
def measuring(probe: Probe, address: Address = GUEST) -> Iterator[Measurement]:
    meter = OutageMeter([probe], address)
    found = Measurement(meter)
    meter.start()
    try:
        yield found
    finally:
        found.gap_ms = meter.stop()


def answering(probe: Probe, address: Address, reply: Reply | None = None) -> ExitStack:
    """A server for this probe."""
    stack = ExitStack()
    if isinstance(probe, TcpProbe | HttpProbe | SmtpProbe):
        stack.enter_context(tcp_server(wait_for_the_end, address=str(address), port=PORT))
    else:
        stack.enter_context(udp_server(reply or name_server(SOA), address=str(address), port=PORT))
    return stack


def out_for_a_while(found: Measurement) -> None:
    """At least the pause, less what the server still answered while it was stopped; nothing absurd."""
    assert found.gap_ms is not None
    assert PAUSE_S * 1000 * 0.8 <= found.gap_ms < 30_000


@pytest.mark.parametrize("address", [GUEST, GUEST6])
@pytest.mark.parametrize("probe", [DNS, TcpProbe(PORT), HttpProbe(port=PORT), SmtpProbe(PORT)])
def test_a_server_that_is_stopped_for_a_while(probe: Probe, address: Address) -> None:
    with measuring(probe, address) as found:
        with answering(probe, address):
            found.wait_answer()
        # Its port is closed now.
        time.sleep(PAUSE_S)
        with answering(probe, address):
            found.wait_answer()
    out_for_a_while(found)


@pytest.fixture
def guest() -> Iterator[OtherNetwork]:
    """The other end of a cable from the bridge: vec0 with 10.99.0.80."""
    network = OtherNetwork()
    ip("link", "add", "ap-test", "type", "veth", "peer", "name", "vec0", "netns", network.path)
    ip("link", "set", "ap-test", "master", "br-test", "up")
    with network.entered():
        ip("link", "set", "vec0", "up")
        ip("address", "add", "10.99.0.80/24", "dev", "vec0")
    yield network
    network.close()


@pytest.mark.parametrize("probe", [DNS, TcpProbe(PORT)])
@pytest.mark.parametrize(
    ("away", "back"),
    [
        ("address del 10.99.0.80/24 dev vec0", "address add 10.99.0.80/24 dev vec0"),
        ("link set vec0 down", "link set vec0 up"),
        ("route add blackhole 10.99.0.1", "route del blackhole 10.99.0.1"),
    ],
)
def test_a_guest_that_is_away_for_a_while(guest: OtherNetwork, probe: Probe, away: str, back: str) -> None:
    with guest.entered():
        # On all addresses: a socket of an address that is gone would stay deaf.
        server = answering(probe, ip_address("0.0.0.0"))
    with server, measuring(probe, ip_address("10.99.0.80")) as found:
        found.wait_answer()
        with guest.entered():
            ip(*away.split())
            time.sleep(PAUSE_S)
            ip(*back.split())
        found.wait_answer()
    out_for_a_while(found)


def test_the_hosts_own_end_may_be_away_as_well(guest: OtherNetwork) -> None:
    with guest.entered():
        server = answering(DNS, ip_address("0.0.0.0"))
    with server, measuring(DNS, ip_address("10.99.0.80")) as found:
        found.wait_answer()
        ip("link", "set", "br-test", "down")
        time.sleep(PAUSE_S)
        ip("link", "set", "br-test", "up")
        found.wait_answer()
    out_for_a_while(found)


def test_a_server_that_runs_has_no_outage_to_speak_of() -> None:
    with answering(DNS, GUEST), measuring(DNS) as found:
        for _ in range(3):
            found.wait_answer()
    assert found.gap_ms is not None
    assert found.gap_ms < 10_000


def test_an_outage_that_has_not_ended_counts() -> None:
    with measuring(DNS) as found:
        with answering(DNS, GUEST):
            found.wait_answer()
        time.sleep(PAUSE_S)
    out_for_a_while(found)


@pytest.mark.parametrize(
    "start", [partial(answering, DNS, GUEST, silence), partial(answering, TcpProbe(PORT), GUEST), ExitStack]
)
def test_who_never_answers_has_no_outage(start: Callable[[], ExitStack]) -> None:
    with start(), measuring(DNS) as found:
        time.sleep(0.05)
    assert found.gap_ms is None


def test_other_answers_count_only_where_any_does() -> None:
    refused = name_server(rcode="REFUSED")
    with answering(DNS, GUEST, refused), measuring(DNS) as strict:
        time.sleep(0.05)
    any_status = DnsProbe("example.test", status=DnsStatus.ANY, port=PORT)
    with answering(DNS, GUEST, refused), measuring(any_status) as lenient:
        lenient.wait_answer()
    assert strict.gap_ms is None
    assert lenient.gap_ms is not None


def test_rubbish_is_no_answer() -> None:
    def rubbish(datagram: bytes) -> list[bytes]:
        return [b"", datagram, b"\xff" * 12, datagram[:2] + b"\x80"]

    with answering(DNS, GUEST, rubbish), measuring(DNS) as found:
        time.sleep(0.05)
    assert found.gap_ms is None


def test_udp_services_that_say_something_can_be_measured() -> None:
    with answering(UdpProbe(PORT), GUEST, lambda _: [b"?"]), measuring(UdpProbe(PORT)) as found:
        found.wait_answer()
    assert found.gap_ms is not None


def test_the_first_probe_that_allows_it_is_measured() -> None:
    meter = OutageMeter([PingProbe(), NtpProbe(), DNS], GUEST)
    with answering(DNS, GUEST):
        meter.start()
        Measurement(meter).wait_answer()
        assert meter.stop() is not None


@pytest.mark.parametrize("probes", [[], [PingProbe()], [NtpProbe()]])
def test_where_nothing_can_be_measured_nothing_is_done(probes: list[Probe]) -> None:
    meter = OutageMeter(probes, GUEST)
    meter.start()
    assert meter.stop() is None


def test_a_meter_that_was_never_started_can_be_stopped() -> None:
    assert OutageMeter([DNS], GUEST).stop() is None


@pytest.mark.parametrize("probe", [DNS, TcpProbe(PORT)])
def test_a_forgotten_meter_ends_by_itself(probe: Probe) -> None:
    meter = OutageMeter([probe], GUEST, limit_s=0.05)
    meter.start()
    meter._thread.join(10)
    assert not meter._thread.is_alive()
    assert meter.stop() is None


@pytest.mark.parametrize("probe", [DNS, TcpProbe(PORT)])
def test_it_leaves_the_processor_to_others(probe: Probe) -> None:
    begin, used = time.monotonic(), time.process_time()
    with measuring(probe):
        time.sleep(0.5)
    # A loop that does not sleep would use all of it.
    assert time.process_time() - used < 0.5 * (time.monotonic() - begin)


def test_a_flood_of_answers_does_not_keep_it_from_stopping() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.bind((str(GUEST), PORT))
        with measuring(UdpProbe(PORT)) as found:
            _, client = flood.recvfrom(100)
            for _ in range(20_000):
                flood.sendto(b"?", client)
    assert found.gap_ms is not None
