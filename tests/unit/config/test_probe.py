"""`health: probe:`, in an appliance's file and in a manifest: every form, every refusal with its place."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.document import Findings, read_document
from agent.config.probe import MAX_PROBES, plain_probe, read_probes
from agent.model.probe import (
    DnsProbe,
    DnsStatus,
    DnsType,
    HttpProbe,
    NtpProbe,
    PingProbe,
    Probe,
    SmtpProbe,
    TcpProbe,
    UdpProbe,
)
from tests.unit.config.strategies import HOSTILE_TEXTS, probes, values


def read(text: str) -> tuple[tuple[Probe, ...], list[str]]:
    findings = Findings("dns.yaml")
    value = read_document(f"probe: {text}", findings).get("probe")
    assert value
    return read_probes(value), [str(finding) for finding in findings.items]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ping", (PingProbe(),)),
        ("{ping: {}}", (PingProbe(),)),
        ("{tcp: 22}", (TcpProbe(22),)),
        ("{tcp: 53, udp: 53}", (TcpProbe(53), UdpProbe(53))),
        ("[ping, {udp: 514}]", (PingProbe(), UdpProbe(514))),
        ("http", (HttpProbe("/", 200, "", 80),)),
        ("{http: {path: /x?y, status: any, contains: ja, port: 81}}", (HttpProbe("/x?y", 0, "ja", 81),)),
        ("{http: {status: 404}}", (HttpProbe(status=404),)),
        ("{dns: {name: example.test}}", (DnsProbe("example.test", DnsType.SOA, DnsStatus.NOERROR, 53),)),
        (
            "{dns: {name: _sip._tcp.example.test., type: SRV, status: any, port: 5353}}",
            (DnsProbe("_sip._tcp.example.test.", DnsType.SRV, DnsStatus.ANY, 5353),),
        ),
        ("{dns: {name: ., type: NS}}", (DnsProbe(".", DnsType.NS),)),
        ("[ntp, smtp]", (NtpProbe(123), SmtpProbe(25))),
        ("{ntp: {port: 1123}, smtp: {port: 587}}", (NtpProbe(1123), SmtpProbe(587))),
    ],
)  # fmt: skip
def test_forms(text: str, expected: tuple[Probe, ...]) -> None:
    assert read(text) == (expected, [])


KINDS = "tcp, udp, dns, http, ping, ntp, smtp"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "1:7: probe: text expected, found nothing"),
        ("[]", f"1:8: probe: a probe expected ({KINDS}), found an empty list"),
        ("{}", f"1:8: probe: a probe is missing: {KINDS}"),
        ("none", f"1:8: probe: “none” is no probe; known here: {KINDS}"),
        ("tcp", "1:8: probe: “tcp” needs to be told more, as in {tcp: …}"),
        ("{tcp: 0}", "1:14: probe.tcp: a number from 1 to 65535 expected, found 0"),
        ("{tcp: [1, 2]}", "1:14: probe.tcp: a number expected, found a list"),
        (
            "{exec: [/bin/true]}",
            "1:9: “probe.exec” is not a known key; known here: dns, http, ntp, ping, smtp, tcp, udp",
        ),
        ("{dns: {}}", "1:14: probe.dns: “name” is missing"),
        ("{dns: {name: a b}}", "1:21: probe.dns.name: “a b” is not a domain name"),
        (
            "{dns: {name: a, type: AXFR}}",
            "1:30: probe.dns.type: one of SOA, NS, A, AAAA, CNAME, MX, TXT, PTR, SRV expected, found “AXFR”",
        ),
        (
            "{dns: {name: a, status: SERVFAIL}}",
            "1:32: probe.dns.status: one of NOERROR, any expected, found “SERVFAIL”",
        ),
        ("{http: {path: x}}", "1:22: probe.http.path: “x” is no path of a URL: ASCII without spaces"),
        ("{http: {path: /ä}}", "1:22: probe.http.path: “/ä” is no path of a URL: ASCII without spaces"),
        ("{http: {status: 42}}", "1:24: probe.http.status: a number from 200 to 599 expected, found 42"),
        ("{http: {contains: ''}}", "1:26: probe.http.contains: text of 1 to 256 characters expected"),
        ("[ping, {ping: {port: 1}}]", "1:23: “probe[1].ping.port” is not a known key; known here: "),
        (f"[{', '.join(['ping'] * 9)}]", "1:8: probe: at most 8 probes are allowed, found 9"),
    ],
)
def test_refusals(text: str, finding: str) -> None:
    assert read(text)[1] == [f"dns.yaml:{finding}"]


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_no_name_or_path_says_more_than_it_seems(text: str) -> None:
    for content in ({"dns": {"name": text}}, {"http": {"path": text}}):
        probes, findings = read(yaml.safe_dump(content, default_flow_style=True, width=99999))
        for probe in () if findings else probes:
            assert isinstance(probe, HttpProbe)
            assert f"GET {probe.path} HTTP/1.1".split() == ["GET", probe.path, "HTTP/1.1"]
            assert probe.path.isascii()


@given(st.lists(probes, min_size=1, max_size=MAX_PROBES).map(tuple))
def test_reads_back_what_it_writes(given_probes: tuple[Probe, ...]) -> None:
    text = yaml.safe_dump(
        [plain_probe(probe) for probe in given_probes], default_flow_style=True, width=9999
    )
    assert read(text) == (given_probes, [])


@given(values)
def test_any_value_is_read_or_refused(value: object) -> None:
    findings = Findings("dns.yaml")
    document = read_document(yaml.safe_dump({"probe": value}), findings).get("probe")
    if document is None:
        return
    read = read_probes(document)
    assert len(read) <= MAX_PROBES
    assert read or findings.items
