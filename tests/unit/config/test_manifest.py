"""The manifest of an image: read back as written, and never more than it may be."""

from __future__ import annotations

import posixpath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.manifest import MAX_BYTES, SIGNALS, read_manifest, render_manifest
from agent.config.probe import MAX_PROBES
from agent.model.errors import ConfigurationError
from agent.model.image import DataFormat, Manifest, Ready, ReadyKind, Requests, Service
from agent.model.probe import HttpProbe, TcpProbe, UdpProbe
from tests.unit.config.strategies import HOSTILE_TEXTS, probes, values

HEAD = """\
interface: 1
name: dns-nsd
version: "4.6.1-1"
vendor: example.org
architecture: x86_64
role: dns-authoritative/1
"""
SERVICE = "service: {exec: [/usr/sbin/nsd, -d]}\n"
COMPLETE = """\
interface: 1
name: dns-nsd
version: "4.6.1-1"
vendor: example.org
architecture: x86_64
role: dns-authoritative/1
service:
  exec: [/usr/sbin/nsd, -d, -c, /run/appliance/nsd.conf]
  prepare: [/usr/lib/appliance/prepare]
  check: [/usr/sbin/nsd-checkconf, /run/appliance/nsd.conf]
  ready: {udp: 53}
  ready-timeout: 500ms
  stop: {signal: QUIT, timeout: 5s}
  reload: {signal: HUP}
  environment: {MALLOC_ARENA_MAX: "1"}
health: {exec: [/usr/lib/appliance/health], probe: [{udp: 53}, {http: {status: any}}]}
writable: [/var/lib/nsd, /run, /tmp]
data: {mount: /data, format: 2, reads: [1, 2]}
requests: {memory: 48M, ports: [53/udp, 53/tcp]}
"""


def read(text: str) -> Manifest:
    return read_manifest(text.encode(), "manifest.yaml")


def findings(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return [str(finding) for finding in caught.value.findings]


def test_everything_a_manifest_can_say() -> None:
    assert read(COMPLETE) == Manifest(
        interface=1,
        name="dns-nsd",
        version="4.6.1-1",
        vendor="example.org",
        architecture="x86_64",
        role="dns-authoritative/1",
        service=Service(
            exec=("/usr/sbin/nsd", "-d", "-c", "/run/appliance/nsd.conf"),
            prepare=("/usr/lib/appliance/prepare",),
            check=("/usr/sbin/nsd-checkconf", "/run/appliance/nsd.conf"),
            ready=(Ready(ReadyKind.UDP, port=53),),
            ready_timeout_s=0.5,
            stop_signal="QUIT",
            stop_timeout_s=5.0,
            reload_signal="HUP",
            environment=(("MALLOC_ARENA_MAX", "1"),),
        ),
        health=("/usr/lib/appliance/health",),
        writable=("/var/lib/nsd", "/run", "/tmp"),
        data=DataFormat(mount="/data", format=2, reads=(1, 2)),
        requests=Requests(memory_bytes=48 << 20, ports=("53/udp", "53/tcp")),
        probes=(UdpProbe(53), HttpProbe(status=0)),
    )


def test_the_least_a_manifest_must_say() -> None:
    manifest = read(HEAD + SERVICE)
    assert manifest.service == Service(exec=("/usr/sbin/nsd", "-d"))
    assert (manifest.health, manifest.writable, manifest.data) == ((), (), None)
    assert manifest.requests == Requests()


def test_a_probe_alone_is_enough() -> None:
    manifest = read(HEAD + SERVICE + "health: {probe: {tcp: 80}}\n")
    assert (manifest.health, manifest.probes) == ((), (TcpProbe(80),))


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        ("notify", (Ready(ReadyKind.NOTIFY),)),
        ("{tcp: 80}", (Ready(ReadyKind.TCP, port=80),)),
        ("{tcp: 53, udp: 53}", (Ready(ReadyKind.TCP, port=53), Ready(ReadyKind.UDP, port=53))),
        ("[{udp: 53}, {tcp: 53}]", (Ready(ReadyKind.UDP, port=53), Ready(ReadyKind.TCP, port=53))),
        ("[notify, {exec: [/up]}]", (Ready(ReadyKind.NOTIFY), Ready(ReadyKind.EXEC, exec=("/up",)))),
        ("[]", ()),
    ],
)  # fmt: skip
def test_readiness(ready: str, expected: tuple[Ready, ...]) -> None:
    assert read(f"{HEAD}service: {{exec: [/bin/a], ready: {ready}}}\n").service.ready == expected


@pytest.mark.parametrize(
    ("reload", "signal", "command"),
    [("{signal: USR1}", "USR1", ()), ("{exec: [/bin/tell, now]}", "", ("/bin/tell", "now"))],
)
def test_how_the_service_is_told_of_new_files(reload: str, signal: str, command: tuple[str, ...]) -> None:
    service = read(f"{HEAD}service: {{exec: [/bin/a], reload: {reload}}}\n").service
    assert (service.reload_signal, service.reload_exec, service.reloads) == (signal, command, True)


def test_a_service_that_cannot_be_told() -> None:
    assert not read(HEAD + SERVICE).service.reloads


def test_another_interface_is_the_only_finding() -> None:
    text = COMPLETE.replace("interface: 1", "interface: 2") + "unheard-of: 1\n"
    assert findings(text) == ["manifest.yaml:1:12: interface: interface 2; this agent implements 1"]


def test_another_architecture_is_named() -> None:
    (finding,) = findings(COMPLETE.replace("x86_64", "aarch64"))
    assert finding == "manifest.yaml:5:15: architecture: image for aarch64; guests of this agent are x86_64"


def test_all_findings_come_at_once_with_their_places() -> None:
    text = (
        HEAD.replace("example.org", "'Example, Org'")
        + "service: {exec: [nsd], stop: {signal: BANG}, reeady: notify}\n"
    )
    assert [finding.split(": ")[0] for finding in findings(text)] == [
        "manifest.yaml:4:9",
        "manifest.yaml:7:18",
        "manifest.yaml:7:39",
        "manifest.yaml:7:46",
    ]


@pytest.mark.parametrize(
    "key", ["interface", "name", "version", "vendor", "architecture", "role", "service"]
)
def test_what_is_missing_is_named(key: str) -> None:
    content = yaml.safe_load(COMPLETE)
    del content[key]
    assert any(f"“{key}” is missing" in finding for finding in findings(yaml.safe_dump(content)))


@pytest.mark.parametrize(
    "part",
    [
        "service: {exec: []}",
        "service: {exec: /usr/sbin/nsd}",
        "service: {exec: [usr/sbin/nsd]}",
        "service: {exec: [/usr/../sbin/nsd]}",
        "service: {exec: [/bin/a, [b]]}",
        'service: {exec: [/bin/a, "b\\nc"]}',
        'service: {exec: [/bin/a, "b\\0"]}',
        f"service: {{exec: [{', '.join(['/bin/a'] * 65)}]}}",
        "service: {exec: [/bin/a], ready: started}",
        "service: {exec: [/bin/a], ready: {}}",
        "service: {exec: [/bin/a], ready: {udp: 0}}",
        "service: {exec: [/bin/a], ready: {tcp: 65536}}",
        "service: {exec: [/bin/a], ready: {sctp: 1}}",
        "service: {exec: [/bin/a], ready: [notify, notify]}",
        f"service: {{exec: [/bin/a], ready: [{', '.join(['{tcp: 1, udp: 1}'] * 9)}]}}",
        "service: {exec: [/bin/a], ready-timeout: 0}",
        "service: {exec: [/bin/a], stop: {signal: SIGTERM}}",
        "service: {exec: [/bin/a], stop: {timeout: 11min}}",
        "service: {exec: [/bin/a], reload: HUP}",
        "service: {exec: [/bin/a], reload: {}}",
        "service: {exec: [/bin/a], reload: {signal: BANG}}",
        "service: {exec: [/bin/a], reload: {exec: [tell]}}",
        "service: {exec: [/bin/a], reload: {signal: HUP, exec: [/bin/tell]}}",
        "service: {exec: [/bin/a], environment: {'A B': c}}",
        "service: {exec: [/bin/a], environment: {A: [b]}}",
    ],
)
def test_a_service_that_is_refused(part: str) -> None:
    assert findings(f"{HEAD}{part}\n")


@pytest.mark.parametrize(
    "part",
    [
        "health: [/bin/a]",
        "health: {}",
        "health: {probe: none}",
        "health: {probe: []}",
        "health: {probe: {exec: [/bin/a]}}",
        f"health: {{probe: [{', '.join(['ping'] * 9)}]}}",
        "writable: /var",
        "writable: [/]",
        "writable: [var]",
        "writable: [/var/../etc]",
        "writable: [/dev/x]",
        "writable: [/proc]",
        "writable: [/run/appliance]",
        "writable: [/usr/lib/appliance]",
        "writable: [/var, /var/lib]",
        "writable: [/run/nsd]",
        "writable: [/a, /a]",
        f"writable: [{', '.join(f'/a{number}' for number in range(33))}]",
        "data: {}",
        "data: {mount: /}",
        "data: {mount: /run/data}",
        "data: {mount: /sys/data}",
        "data: {mount: /data, format: 0}",
        "data: {mount: /data, format: 2, reads: [1]}",
        "{writable: [/data/cache], data: {mount: /data}}",
        "requests: {memory: 1M}",
        "requests: {ports: [53]}",
        "requests: {ports: [70000/udp]}",
        "requests: {ports: [53/sctp]}",
        "requests: {disk: 1M}",
    ],
)
def test_a_promise_that_is_refused(part: str) -> None:
    assert findings(f"{HEAD}{SERVICE}{part.strip('{}') if part.startswith('{w') else part}\n")


def test_a_manifest_larger_than_a_boot_plan_is_refused() -> None:
    assert findings(COMPLETE + "#" * MAX_BYTES) == ["manifest.yaml: larger than 32 KiB"]


paths = st.from_regex(r"\A/[a-z]{1,8}(/[a-z.]{1,8}[a-z]){0,3}\Z").filter(
    lambda path: path == posixpath.normpath(path)
)
texts = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=20)
commands = st.builds(lambda program, rest: (program, *rest), paths, st.lists(texts, max_size=4))
# Computed as parse_span() does: 4725 * 0.001 is not 4.725.
spans = st.integers(1, 600_000).map(lambda number: number * 1e-3 if number % 1000 else number / 1000)
ports = st.integers(1, 65535)
conditions = st.lists(
    st.builds(Ready, st.sampled_from([ReadyKind.TCP, ReadyKind.UDP]), port=ports)
    | st.builds(Ready, st.just(ReadyKind.EXEC), exec=commands)
    | st.just(Ready(ReadyKind.NOTIFY)),
    max_size=4,
    unique_by=lambda ready: (ready.kind, ready.port),
)
reloads = (
    st.just(("", ())) | st.tuples(st.sampled_from(SIGNALS), st.just(())) | st.tuples(st.just(""), commands)
)
services = st.builds(
    lambda reload, **rest: Service(reload_signal=reload[0], reload_exec=reload[1], **rest),
    reload=reloads,
    exec=commands,
    prepare=st.just(()) | commands,
    check=st.just(()) | commands,
    ready=conditions.map(tuple),
    ready_timeout_s=spans,
    stop_signal=st.sampled_from(SIGNALS),
    stop_timeout_s=spans,
    environment=st.dictionaries(st.from_regex(r"\A[A-Z_]{1,9}\Z"), texts, max_size=3).map(
        lambda d: tuple(d.items())
    ),
)
manifests = st.builds(
    Manifest,
    interface=st.just(1),
    name=st.from_regex(r"\A[a-z0-9](-[a-z0-9]{1,5}){0,2}\Z"),
    version=st.from_regex(r"\A[0-9][0-9a-z.+~_-]{0,9}\Z"),
    vendor=st.just("example.org"),
    architecture=st.just("x86_64"),
    role=st.just("web-static/1"),
    service=services,
    health=st.just(()) | commands,
    writable=st.lists(st.sampled_from(("/run", "/tmp", "/var/lib/a", "/srv")), unique=True).map(tuple),
    data=st.none() | st.sampled_from([DataFormat("/data", format=3, reads=(1, 3)), DataFormat("/d")]),
    requests=st.builds(Requests, st.integers(8 << 20, 1 << 36), st.sampled_from([(), ("53/udp",)])),
    probes=st.lists(probes, max_size=MAX_PROBES).map(tuple),
)  # fmt: skip


@given(manifests)
def test_reads_back_what_it_renders(manifest: Manifest) -> None:
    assert read(render_manifest(manifest)) == manifest


@given(st.binary(max_size=300) | values.map(lambda value: yaml.safe_dump(value).encode()))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_manifest(content, "manifest.yaml")


@given(st.sampled_from(sorted(yaml.safe_load(COMPLETE))), values)
def test_any_value_of_any_key_is_read_or_refused(key: str, value: object) -> None:
    text = yaml.safe_dump({**yaml.safe_load(COMPLETE), key: value})
    try:
        manifest = read(text)
    except ConfigurationError:
        return
    assert all(part.isprintable() for part in manifest.service.exec)
    assert read(render_manifest(manifest)) == manifest


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_no_argument_can_end_a_line_of_the_boot_plan(text: str) -> None:
    content = yaml.safe_load(COMPLETE)
    content["service"]["exec"] = ["/bin/a", text]
    try:
        manifest = read(yaml.safe_dump(content))
    except ConfigurationError:
        return
    assert len(f"exec={manifest.service.exec[1]}".splitlines()) == 1
