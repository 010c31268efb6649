"""Published ports, grants, egress lists and limits as administrators write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.document import Findings, read_document
from agent.config.traffic import (
    parse_destination,
    parse_ports,
    parse_publication,
    parse_service,
    read_egress,
    read_grants,
    read_limits,
    read_publications,
)
from agent.model.traffic import (
    NO_GRANTS,
    NO_LIMITS,
    Destination,
    Grants,
    Limits,
    Ports,
    Protocol,
    Publication,
    Service,
)
from tests.unit.config.strategies import hostile_texts

TCP, UDP = Protocol.TCP, Protocol.UDP
PUBLISH = "a port to publish such as 53/udp, 8080:80/tcp or [::]:443:443"
LOOPBACK = "of loopback addresses only 127.0.0.1 leads to guests"
EGRESS = "a destination such as 192.0.2.0/24, [2001:db8::/32]:443/tcp or *:53/udp"
GRANT = "dhcp-server, router, host or host:53/udp expected"


def one(number: int) -> Ports:
    return Ports(number, number)


# --- publish

EVERYWHERE_4 = Publication(TCP, one(8080), one(80), version=4)
EVERYWHERE_6 = Publication(TCP, one(443), one(443), version=6)
HERE_4 = Publication(TCP, one(8080), one(80), ipaddress.ip_address("192.0.2.1"), 4)
HERE_6 = Publication(UDP, one(53), one(53), ipaddress.ip_address("2001:db8::1"), 6)


@pytest.mark.parametrize(
    ("text", "publication"),
    [
        ("80", Publication(TCP, one(80), one(80))),
        ("53/udp", Publication(UDP, one(53), one(53))),
        ("8080:80", Publication(TCP, one(8080), one(80))),
        ("8080:80/udp", Publication(UDP, one(8080), one(80))),
        ("8000-8010", Publication(TCP, Ports(8000, 8010), Ports(8000, 8010))),
        ("8000-8010:9000-9010/udp", Publication(UDP, Ports(8000, 8010), Ports(9000, 9010))),
        ("8000-8000:80", Publication(TCP, one(8000), one(80))),
        ("1-65535", Publication(TCP, Ports(1, 65535), Ports(1, 65535))),
        ("0.0.0.0:8080:80", EVERYWHERE_4),
        ("[::]:443:443", EVERYWHERE_6),
        ("[::]:443", EVERYWHERE_6),
        ("192.0.2.1:8080:80/tcp", HERE_4),
        ("127.0.0.1:80", Publication(TCP, one(80), one(80), ipaddress.ip_address("127.0.0.1"), 4)),
        ("[2001:db8::1]:53/udp", HERE_6),
        ("[2001:DB8:0:0:0:0:0:1]:53:53/udp", HERE_6),
    ],
)
def test_ports_to_publish(text: str, publication: Publication) -> None:
    assert parse_publication(text) == publication


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http",
        "0",
        "65536",
        "-1",
        "80-",
        "-80",
        "90-80",
        "80/sctp",
        "80/TCP",
        "80/",
        "80 ",
        " 80",
        "80\n",
        "٨٠",
        "8²",
        ":80",
        "80:",
        "a:80",
        "1:2:3",
        "8000-8010:80",
        "8000-8010:9000-9009",
        "80:8000-8010",
        "192.0.2.1",
        "192.0.2.1:",
        "192.0.2.256:80",
        "192.0.2:80",
        "192.0.2.01:80",
        "2001:db8::1:80",
        "[192.0.2.1]:80",
        "[2001:db8::1]80",
        "[2001:db8::1%eth0]:80",
        "[]:80",
        "host:80",
        "*:80",
    ],
)
def test_what_is_no_port_to_publish(text: str) -> None:
    assert parse_publication(text) is None


ports = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: Ports(*sorted(pair)))
protocols = st.sampled_from(Protocol)


@st.composite
def publications(draw: st.DrawFn) -> Publication:
    """Every one that can be written."""
    outside = draw(ports)
    first = draw(st.integers(1, 65536 - len(outside)))
    target = draw(st.sampled_from([outside, Ports(first, first + len(outside) - 1)]))
    address = draw(
        st.none() | st.ip_addresses().filter(lambda found: not (found.is_unspecified or found.is_loopback))
    )
    version = address.version if address else draw(st.sampled_from([0, 4, 6]))
    return Publication(draw(protocols), outside, target, address, version)


@given(publications())
def test_a_publication_is_read_as_it_is_shown(publication: Publication) -> None:
    assert parse_publication(str(publication)) == publication


@given(publications(), publications())
def test_two_collide_either_way_and_each_with_itself(first: Publication, second: Publication) -> None:
    assert first.collides(first)
    assert first.collides(second) == second.collides(first)


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ("80", "80/tcp", True),
        ("80", "80/udp", False),
        ("80", "81", False),
        ("8080:80", "8080:81", True),
        ("8080:80", "8081:80", False),
        ("8000-8010", "8010:80", True),
        ("8000-8010", "8011:80", False),
        ("0.0.0.0:80:80", "[::]:80:80", False),
        ("0.0.0.0:80:80", "80", True),
        ("[::]:80:80", "80", True),
        ("192.0.2.1:80:80", "192.0.2.2:80:80", False),
        ("192.0.2.1:80:80", "0.0.0.0:80:80", True),
        ("192.0.2.1:80:80", "[::]:80:80", False),
        ("192.0.2.1:80:80", "80", True),
        ("[2001:db8::1]:80:80", "[::]:80:80", True),
    ],
)
def test_what_collides(first: str, second: str, collide: bool) -> None:
    one_, other = parse_publication(first), parse_publication(second)
    assert one_
    assert other
    assert one_.collides(other) is collide


def published(text: str) -> tuple[tuple[Publication, ...], list[str]]:
    findings = Findings("web.yaml")
    value = read_document(text, findings).get("publish")
    return read_publications(value), [str(finding) for finding in findings.items]


@pytest.mark.parametrize("text", ["publish: 8080:80", "publish: [8080:80]", "publish:\n- 8080:80"])
def test_one_port_or_several(text: str) -> None:
    """YAML 1.1 takes 8080:80 for a number to the base of 60; it is none here."""
    assert published(text) == ((Publication(TCP, one(8080), one(80)),), [])


def test_no_port_at_all() -> None:
    assert published("image: a") == published("publish: []") == ((), [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("publish: http", [f"1:10: publish: “http” is not {PUBLISH}"]),
        ("publish:", ["1:9: publish: text expected, found nothing"]),
        ("publish: {80: 80}", ["1:10: publish: text expected, found a mapping"]),
        (
            "publish:\n- 80\n- 0\n- x",
            [f"3:3: publish[1]: “0” is not {PUBLISH}", f"4:3: publish[2]: “x” is not {PUBLISH}"],
        ),
        ("publish: [80, 8000-8010, 8005:80]", ["1:10: publish: 8005:80/tcp is published twice"]),
        ("publish: ['[::1]:80:80']", [f"1:11: publish[0]: [::1]:80/tcp: {LOOPBACK}"]),
        ("publish: 127.0.0.2:80:81", [f"1:10: publish: 127.0.0.2:80:81/tcp: {LOOPBACK}"]),
    ],
)
def test_refusals_of_publications(text: str, expected: list[str]) -> None:
    assert published(text)[1] == [f"web.yaml:{finding}" for finding in expected]


# --- egress


def subnet(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("*", Destination()),
        ("*:25", Destination(None, TCP, one(25))),
        ("*:53/udp", Destination(None, UDP, one(53))),
        ("*:1024-65535/tcp", Destination(None, TCP, Ports(1024, 65535))),
        ("192.0.2.0/24", Destination(subnet("192.0.2.0/24"))),
        ("192.0.2.7", Destination(subnet("192.0.2.7/32"))),
        ("0.0.0.0/0", Destination(subnet("0.0.0.0/0"))),
        ("192.0.2.7:443/tcp", Destination(subnet("192.0.2.7/32"), TCP, one(443))),
        ("192.0.2.0/24:8000-8010", Destination(subnet("192.0.2.0/24"), TCP, Ports(8000, 8010))),
        ("[2001:db8::/32]", Destination(subnet("2001:db8::/32"))),
        ("[2001:db8::7]", Destination(subnet("2001:db8::7/128"))),
        ("[::/0]:53/udp", Destination(subnet("::/0"), UDP, one(53))),
    ],
)
def test_destinations(text: str, destination: Destination) -> None:
    assert parse_destination(text) == destination


@pytest.mark.parametrize(
    "text",
    [
        "",
        "**",
        ":25",
        "25",
        "*:",
        "*:0",
        "*:65536",
        "*:25/icmp",
        "*/udp",
        "192.0.2.1/24",
        "192.0.2.0/33",
        "192.0.2.0/24/udp",
        "192.0.2.256",
        "2001:db8::/32",
        "[2001:db8::1/32]",
        "[2001:db8::/129]",
        "[2001:db8::%1]",
        "[192.0.2.0/24]",
        "[]",
        "example.test",
        "example.test:443",
        "*:25\n",
    ],
)
def test_what_is_no_destination(text: str) -> None:
    assert parse_destination(text) is None


@given(st.none() | st.ip_addresses(), st.integers(0, 128), st.none() | ports, protocols)
def test_every_destination_that_can_be_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    length: int,
    numbers: Ports | None,
    protocol: Protocol,
) -> None:
    where, text = None, "*"
    if address:
        where = ipaddress.ip_network(f"{address}/{min(length, address.max_prefixlen)}", strict=False)
        text = f"[{where}]" if where.version == 6 else f"{where}"
    expected = Destination(where, protocol if numbers else None, numbers)
    assert parse_destination(f"{text}:{numbers}/{protocol}" if numbers else text) == expected


def leaving(text: str) -> tuple[tuple[Destination, ...] | None, list[str]]:
    findings = Findings("web.yaml")
    value = read_document(text, findings).get("egress")
    return read_egress(value), [str(finding) for finding in findings.items]


def test_no_egress_is_not_the_same_as_none_said() -> None:
    assert leaving("image: a") == (None, [])
    assert leaving("egress: []") == ((), [])


def test_one_destination_or_several() -> None:
    assert leaving("egress: 192.0.2.7") == ((Destination(subnet("192.0.2.7/32")),), [])
    assert leaving("egress: [192.0.2.7, '*:25']") == (
        (Destination(subnet("192.0.2.7/32")), Destination(None, TCP, one(25))),
        [],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("egress: none", [f"1:9: egress: “none” is not {EGRESS}"]),
        ("egress:\n- 192.0.2.1/24", [f"2:3: egress[0]: “192.0.2.1/24” is not {EGRESS}"]),
        (
            "egress: [a, 192.0.2.0/24, b]",
            [
                f"1:10: egress[0]: “a” is not {EGRESS}",
                f"1:27: egress[2]: “b” is not {EGRESS}",
            ],
        ),
    ],
)
def test_refusals_of_destinations(text: str, expected: list[str]) -> None:
    assert leaving(text)[1] == [f"web.yaml:{finding}" for finding in expected]


# --- grants


@pytest.mark.parametrize(
    ("text", "grants"),
    [
        ("[]", NO_GRANTS),
        ("dhcp-server", Grants(dhcp_server=True)),
        ("[router]", Grants(router=True)),
        ("[host]", Grants(host=True)),
        ("host:53/udp", Grants(services=(Service(UDP, one(53)),))),
        (
            "[host:22, host:8000-8010]",
            Grants(services=(Service(TCP, one(22)), Service(TCP, Ports(8000, 8010)))),
        ),
        ("[dhcp-server, router, host]", Grants(dhcp_server=True, router=True, host=True)),
    ],
)
def test_grants(text: str, grants: Grants) -> None:
    assert granted(f"grants: {text}") == (grants, [])


def granted(text: str) -> tuple[Grants, list[str]]:
    findings = Findings("web.yaml")
    value = read_document(text, findings).get("grants")
    return read_grants(value), [str(finding) for finding in findings.items]


def test_nothing_is_granted_by_itself() -> None:
    assert granted("image: a") == (NO_GRANTS, [])


@pytest.mark.parametrize(
    "text", ["root", "hosts", "host:", "host:0", "host:x", "host:53/icmp", "Host", "host:1:2"]
)
def test_refusals_of_grants(text: str) -> None:
    finding = f"web.yaml:1:18: grants[1]: “{text}” is no grant: {GRANT}"
    assert granted(f"grants: [router, '{text}']") == (Grants(router=True), [finding])


# --- limits


def limited(text: str) -> tuple[Limits, list[str]]:
    findings = Findings("web.yaml")
    section = read_document(text, findings).section("limits")
    return read_limits(section), [str(finding) for finding in findings.items]


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("{}", NO_LIMITS),
        ("{bandwidth: 100M}", Limits(bandwidth=100_000_000)),
        ("{bandwidth: 8000}", Limits(bandwidth=8_000)),
        ("{bandwidth: 8K}", Limits(bandwidth=8_000)),
        ("{bandwidth: 100G}", Limits(bandwidth=100_000_000_000)),
        ("{connections: 1}", Limits(connections=1)),
        ("{bandwidth: 1G, connections: 1000000}", Limits(bandwidth=1_000_000_000, connections=1_000_000)),
    ],
)
def test_limits(text: str, limits: Limits) -> None:
    assert limited(f"limits: {text}") == (limits, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{bandwidth: fast}",
            "1:21: limits.bandwidth: “fast” is not a bandwidth such as 100M (bits per second)",
        ),
        ("{bandwidth: 7999}", "1:21: limits.bandwidth: 7999 is out of range (8K to 100G bits per second)"),
        ("{bandwidth: 101G}", "1:21: limits.bandwidth: 101G is out of range (8K to 100G bits per second)"),
        ("{bandwidth: 0}", "1:21: limits.bandwidth: 0 is out of range (8K to 100G bits per second)"),
        ("{connections: 0}", "1:23: limits.connections: a number from 1 to 1000000 expected, found 0"),
        ("{memory: 1}", "1:10: “limits.memory” is not a known key; known here: bandwidth, connections"),
        ("100M", "1:9: limits: a mapping expected, found “100M”"),
    ],
)
def test_refusals_of_limits(text: str, expected: str) -> None:
    assert limited(f"limits: {text}")[1] == [f"web.yaml:{expected}"]


# --- whatever is written

READERS = (parse_ports, parse_publication, parse_destination, parse_service)
nearly = st.text(alphabet="0123456789.:-/[]*tcpudhos²٣", max_size=24)


@given(hostile_texts | nearly)
def test_every_text_is_read_or_refused(text: str) -> None:
    for read in READERS:
        assert read(text) is None or text.isascii()
