"""Reads and writes `health: probe:`, which appliance.yaml(5) and the manifests of images have in common.

A probe is a word (`ping`) or a mapping of which every entry is one (`{tcp: 53, udp: 53}`); a list of these
is several. Names and paths are checked so that nothing in them can mean more to a library than it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.config.document import Section, Value
from agent.model.probe import (
    DnsProbe,
    DnsStatus,
    DnsType,
    HttpProbe,
    NtpProbe,
    PingProbe,
    Probe,
    ProbeKind,
    SmtpProbe,
    TcpProbe,
    UdpProbe,
)

MAX_PROBES = 8
ANY = "any"

# Those that need to be told nothing.
_WORDS: dict[str, Probe] = {
    ProbeKind.PING: PingProbe(),
    ProbeKind.HTTP: HttpProbe(),
    ProbeKind.NTP: NtpProbe(),
    ProbeKind.SMTP: SmtpProbe(),
}
_KINDS = ", ".join(ProbeKind)
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}(\.{_LABEL})*\.?|\.)")
_HTTP_PATH = re.compile(r"/[!-~]{0,1023}")
_MAX_CONTAINS = 256


def read_probes(value: Value) -> tuple[Probe, ...]:
    """One probe or several; none, and findings, where they are not as they must be."""
    if value.is_list() and not list(value.items()):
        value.complain(f"a probe expected ({_KINDS}), found an empty list")
    probes = tuple(probe for item in value.items_or_self() for probe in _probes(item))
    if len(probes) > MAX_PROBES:
        value.complain(f"at most {MAX_PROBES} probes are allowed, found {len(probes)}")
    return probes[:MAX_PROBES]


def _probes(value: Value) -> Iterator[Probe]:
    if not value.is_mapping():
        word = value.text(check=_check_word)
        yield from [_WORDS[word]] if word else []
        return
    section = value.section()
    for kind in ProbeKind:
        if entry := section.get(kind):
            yield _probe(kind, entry)
    if not section.keys():
        value.complain(f"a probe is missing: {_KINDS}")
    section.finish()


def _probe(kind: ProbeKind, value: Value) -> Probe:
    match kind:
        case ProbeKind.TCP:
            return TcpProbe(value.integer(minimum=1, maximum=65535))
        case ProbeKind.UDP:
            return UdpProbe(value.integer(minimum=1, maximum=65535))
    section = value.section()
    probe = _described(kind, section)
    section.finish()
    return probe


def _described(kind: ProbeKind, section: Section) -> Probe:
    match kind:
        case ProbeKind.DNS:
            return DnsProbe(
                name=section.text("name", check=_check_dns_name),
                type=section.choice("type", DnsType.SOA),
                status=section.choice("status", DnsStatus.NOERROR),
                port=_port(section, 53),
            )
        case ProbeKind.HTTP:
            return HttpProbe(
                path=section.text("path", default="/", check=_check_http_path),
                status=_http_status(section.get("status")),
                contains=section.text("contains", default="", check=_check_contains),
                port=_port(section, 80),
            )
        case ProbeKind.NTP:
            return NtpProbe(_port(section, 123))
        case ProbeKind.SMTP:
            return SmtpProbe(_port(section, 25))
        case _:
            return PingProbe()


def _port(section: Section, default: int) -> int:
    return section.integer("port", default=default, minimum=1, maximum=65535)


def _http_status(value: Value | None) -> int:
    if value is None:
        return 200
    return 0 if value.is_word(ANY) else value.integer(minimum=200, maximum=599)


def _check_word(text: str) -> str:
    if text in _WORDS:
        return ""
    if text in list(ProbeKind):
        return f"“{text}” needs to be told more, as in {{{text}: …}}"
    return f"“{text}” is no probe; known here: {_KINDS}"


def _check_dns_name(text: str) -> str:
    return "" if _DNS_NAME.fullmatch(text) else f"“{text}” is not a domain name"


def _check_http_path(text: str) -> str:
    return "" if _HTTP_PATH.fullmatch(text) else f"“{text}” is no path of a URL: ASCII without spaces"


def _check_contains(text: str) -> str:
    return "" if 0 < len(text) <= _MAX_CONTAINS else f"text of 1 to {_MAX_CONTAINS} characters expected"


def plain_probe(probe: Probe) -> object:
    """What `read_probes` reads back as this probe."""
    match probe:
        case TcpProbe(port):
            return {str(ProbeKind.TCP): port}
        case UdpProbe(port):
            return {str(ProbeKind.UDP): port}
        case DnsProbe(name, kind, status, port):
            return {
                str(ProbeKind.DNS): {"name": name, "type": str(kind), "status": str(status), "port": port}
            }
        case HttpProbe():
            return {str(ProbeKind.HTTP): _plain_http(probe)}
        case NtpProbe(port):
            return {str(ProbeKind.NTP): {"port": port}}
        case SmtpProbe(port):
            return {str(ProbeKind.SMTP): {"port": port}}
        case PingProbe():
            return str(ProbeKind.PING)


def _plain_http(probe: HttpProbe) -> dict[str, object]:
    plain: dict[str, object] = {"path": probe.path, "status": probe.status or ANY}
    if probe.contains:
        plain["contains"] = probe.contains
    return {**plain, "port": probe.port}
