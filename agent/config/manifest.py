"""The manifest of an image: `/usr/lib/appliance/manifest.yaml`, read and written (docs/interface-1.md).

A manifest comes from a vendor and is not trusted: it is small, every list is bounded, every path is
absolute and plain, and no text has control characters, because the guest's boot plan holds one value on
a line. What an image promises is checked here; what the host grants it is decided elsewhere.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

import yaml

from agent.config.common import check_absolute_path
from agent.config.document import Findings, Section, Value, read_document
from agent.config.probe import plain_probe, read_probes
from agent.config.units import format_size, format_span
from agent.model.image import (
    ARCHITECTURE,
    INTERFACE,
    DataFormat,
    Manifest,
    Ready,
    ReadyKind,
    Requests,
    Service,
)
from agent.model.names import IMAGE_NAME, IMAGE_VERSION, ROLE

MAX_BYTES = 32 << 10
"""Half of what a guest accepts as its boot plan, so that every valid manifest can be booted."""

MAX_ARGUMENTS = 64
MAX_VARIABLES = 64
MAX_WRITABLE = 32
MAX_CONDITIONS = 16
MAX_PORTS = 64
MAX_FORMATS = 64

SIGNALS = ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2", "WINCH")

# The runtime mounts these itself, or keeps its own files there.
_TAKEN = ("/dev", "/proc", "/sys", "/run/appliance", "/usr/lib/appliance")
_ALWAYS_WRITABLE = ("/run", "/tmp")  # noqa: S108 (paths inside a guest)

_VENDOR = re.compile(r"[a-z0-9](?:[a-z0-9]|[.-](?=[a-z0-9])){0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PORT = re.compile(r"([0-9]{1,5})/(?:tcp|udp)")


def read_manifest(content: bytes, path: str) -> Manifest:
    """The manifest in `content`; ConfigurationError with everything that is wrong, named as found in
    `path`."""
    findings = Findings(path)
    if len(content) > MAX_BYTES:
        findings.add(None, f"larger than {MAX_BYTES >> 10} KiB")
        findings.raise_if_any()
    section = read_document(content, findings)
    findings.raise_if_any()
    _check_interface(section)
    findings.raise_if_any()
    manifest = read_promises(
        section,
        name=section.text("name", check=check_image_name),
        version=section.text("version", check=check_image_version),
        vendor=section.text("vendor", check=check_vendor),
        role=section.text("role", check=check_role),
    )
    section.text("architecture", check=_check_architecture)
    section.finish()
    findings.raise_if_any()
    return manifest


def read_promises(section: Section, *, name: str, version: str, vendor: str, role: str) -> Manifest:
    """What a manifest and a recipe's `manifest:` have in common. The caller finishes the section."""
    health = section.section("health")
    probe = health.get("probe") if health else None
    manifest = Manifest(
        interface=INTERFACE,
        name=name,
        version=version,
        vendor=vendor,
        architecture=ARCHITECTURE,
        role=role,
        service=_service(section.get("service", required=True)),
        health=_command(health.get("exec", required=probe is None)) if health else (),
        writable=_writable(section.get("writable")),
        data=_data(section.section("data")),
        requests=_requests(section.section("requests")),
        probes=read_probes(probe) if probe else (),
    )
    if health:
        health.finish()
    _check_data_mount(section.get("data"), manifest)
    return manifest


def _check_interface(section: Section) -> None:
    """Of another interface nothing else can be read, so this finding stands alone."""
    value = section.get("interface", required=True)
    interface = value.integer(minimum=1, maximum=9999) if value else INTERFACE
    if value and interface != INTERFACE:
        value.complain(f"interface {interface}; this agent implements {INTERFACE}")


def check_image_name(text: str) -> str:
    """The rule of agent.model.names for images."""
    return (
        ""
        if IMAGE_NAME.fullmatch(text)
        else f"“{text}” is no image name: lower-case letters, digits, “.” and “-”"
    )


def check_image_version(text: str) -> str:
    """The rule of agent.model.names for versions."""
    return "" if IMAGE_VERSION.fullmatch(text) else f"“{text}” is no version: letters, digits and “.+~_-”"


def check_vendor(text: str) -> str:
    """A vendor's domain or name."""
    return (
        "" if _VENDOR.fullmatch(text) else f"“{text}” is no vendor: lower-case letters, digits, “.” and “-”"
    )


def check_role(text: str) -> str:
    """`dns-authoritative/1`."""
    return "" if ROLE.fullmatch(text) else f"“{text}” is no role such as dns-authoritative/1"


def _check_architecture(text: str) -> str:
    return "" if text == ARCHITECTURE else f"image for {text}; guests of this agent are {ARCHITECTURE}"


def _check_signal(text: str) -> str:
    return "" if text in SIGNALS else f"one of {', '.join(SIGNALS)} expected, found “{text}”"


def _check_port(text: str) -> str:
    match = _PORT.fullmatch(text)
    return "" if match and 0 < int(match[1]) < 65536 else f"“{text}” is no port such as 53/udp"


def _check_free_path(text: str) -> str:
    if wrong := check_absolute_path(text):
        return wrong
    taken = next((path for path in _TAKEN if _is_within(text, path)), "")
    return f"“{text}” belongs to the runtime" if taken else ""


def _is_within(path: str, parent: str) -> bool:
    return posixpath.commonpath([path, parent]) == parent


def _bounded(value: Value, limit: int) -> list[Value]:
    items = list(value.items())
    if len(items) > limit:
        value.complain(f"at most {limit} entries are allowed, found {len(items)}")
    return items[:limit]


def _command(value: Value | None) -> tuple[str, ...]:
    """An argument vector whose first element is the absolute path of a program."""
    if value is None:
        return ()
    items = _bounded(value, MAX_ARGUMENTS)
    if value.is_list() and not items:
        value.complain("a program and its arguments expected, found an empty list")
    return tuple(item.text(check=None if index else check_absolute_path) for index, item in enumerate(items))


def _service(value: Value | None) -> Service:
    if value is None:
        return Service(exec=())
    section = value.section()
    stop = section.section("stop")
    reload = section.section("reload")
    service = Service(
        exec=_command(section.get("exec", required=True)),
        prepare=_command(section.get("prepare")),
        check=_command(section.get("check")),
        ready=_ready(section.get("ready")),
        ready_timeout_s=section.span("ready-timeout", default=30.0, minimum=0.001, maximum=3600.0),
        stop_signal=_signal(stop, "TERM"),
        stop_timeout_s=stop.span("timeout", default=5.0, maximum=600.0) if stop else 5.0,
        reload_signal=_signal(reload, ""),
        reload_exec=_command(reload.get("exec")) if reload else (),
        environment=_environment(section.section("environment")),
    )
    if reload and reload.readable and bool(reload.get("signal")) == bool(reload.get("exec")):
        reload.complain("either “signal” or “exec” is needed, and not both")
    for part in (stop, reload, section):
        if part:
            part.finish()
    return service


def _signal(section: Section | None, default: str) -> str:
    return section.text("signal", default=default, check=_check_signal) if section else default


def _ready(value: Value | None) -> tuple[Ready, ...]:
    if value is None:
        return ()
    items = _bounded(value, MAX_CONDITIONS) if value.is_list() else [value]
    conditions = tuple(condition for item in items for condition in _conditions(item))
    if len(conditions) > MAX_CONDITIONS:
        value.complain(f"at most {MAX_CONDITIONS} conditions are allowed, found {len(conditions)}")
    kinds = [condition.kind for condition in conditions]
    for kind in (ReadyKind.EXEC, ReadyKind.NOTIFY):
        if kinds.count(kind) > 1:
            value.complain(f"“{kind}” is given more than once")
    return conditions


def _conditions(value: Value) -> Iterator[Ready]:
    """`notify`, or a mapping of which every entry is a condition."""
    if not value.is_mapping():
        value.text(check=lambda text: "" if text == ReadyKind.NOTIFY else _UNKNOWN_CONDITION.format(text))
        yield Ready(ReadyKind.NOTIFY)
        return
    section = value.section()
    for kind in (ReadyKind.TCP, ReadyKind.UDP):
        if port := section.get(kind):
            yield Ready(kind, port=port.integer(minimum=1, maximum=65535))
    if command := section.get(ReadyKind.EXEC):
        yield Ready(ReadyKind.EXEC, exec=_command(command))
    if not section.keys():
        value.complain("a condition is missing: tcp, udp or exec")
    section.finish()


_UNKNOWN_CONDITION = "“notify”, or a mapping with tcp, udp or exec expected, found “{}”"


def _environment(section: Section | None) -> tuple[tuple[str, str], ...]:
    if section is None:
        return ()
    names = section.keys()
    if len(names) > MAX_VARIABLES:
        section.complain(f"at most {MAX_VARIABLES} variables are allowed, found {len(names)}")
    for name in names:
        if not _VARIABLE.fullmatch(name):
            section.complain(f"“{name}” is no name of an environment variable")
    return tuple((name, section.text(name)) for name in names)


def _writable(value: Value | None) -> tuple[str, ...]:
    if value is None:
        return ()
    paths = tuple(item.text(check=_check_free_path) for item in _bounded(value, MAX_WRITABLE))
    named = [path for path in paths if path]
    for index, path in enumerate(named):
        others = (*named[:index], *named[index + 1 :], *_ALWAYS_WRITABLE)
        if parent := next(
            (other for other in others if path not in _ALWAYS_WRITABLE and _is_within(path, other)), ""
        ):
            value.complain(f"“{path}” lies within “{parent}”, which is writable already")
    return paths


def _data(section: Section | None) -> DataFormat | None:
    if section is None:
        return None
    number = section.integer("format", default=1, minimum=1, maximum=9999)
    reads = section.get("reads")
    readable = (
        tuple(item.integer(minimum=1, maximum=9999) for item in _bounded(reads, MAX_FORMATS))
        if reads
        else ()
    )
    if reads and number not in readable:
        reads.complain(f"the format it writes, {number}, must be among those it reads")
    data = DataFormat(
        mount=section.text("mount", check=_check_free_path), format=number, reads=readable or (number,)
    )
    section.finish()
    return data


def _check_data_mount(value: Value | None, manifest: Manifest) -> None:
    """A tmpfs above the data volume would hide it, one below it would hide data."""
    if value is None or manifest.data is None or not manifest.data.mount:
        return
    mount = manifest.data.mount
    for path in (*_ALWAYS_WRITABLE, *filter(None, manifest.writable)):
        if _is_within(mount, path) or _is_within(path, mount):
            value.complain(f"the data volume at “{mount}” and writable “{path}” must not contain each other")
            return


def _requests(section: Section | None) -> Requests:
    if section is None:
        return Requests()
    ports = section.get("ports")
    requests = Requests(
        memory_bytes=section.size("memory", default=32 << 20, minimum=8 << 20, maximum=1 << 40),
        ports=tuple(item.text(check=_check_port) for item in _bounded(ports, MAX_PORTS)) if ports else (),
    )
    section.finish()
    return requests


_Plain = dict[str, object]


def render_manifest(manifest: Manifest) -> str:
    """YAML that `read_manifest` reads back as the same manifest."""
    content: _Plain = {
        "interface": manifest.interface,
        "name": manifest.name,
        "version": manifest.version,
        "vendor": manifest.vendor,
        "architecture": manifest.architecture,
        "role": manifest.role,
        "service": _plain_service(manifest.service),
        "health": _plain_health(manifest),
        "writable": list(manifest.writable),
        "data": _plain_data(manifest.data) if manifest.data else None,
        "requests": {
            "memory": format_size(manifest.requests.memory_bytes),
            "ports": list(manifest.requests.ports),
        },
    }
    return yaml.safe_dump(_without_empty(content), sort_keys=False, allow_unicode=True, width=100)


def _without_empty(content: _Plain) -> _Plain:
    return {key: value for key, value in content.items() if value not in (None, "", [], {})}


def _plain_service(service: Service) -> _Plain:
    return _without_empty(
        {
            "exec": list(service.exec),
            "prepare": list(service.prepare),
            "check": list(service.check),
            "ready": [_plain_ready(ready) for ready in service.ready],
            "ready-timeout": format_span(service.ready_timeout_s),
            "stop": {"signal": service.stop_signal, "timeout": format_span(service.stop_timeout_s)},
            "reload": _without_empty({"signal": service.reload_signal, "exec": list(service.reload_exec)}),
            "environment": dict(service.environment),
        }
    )


def _plain_ready(ready: Ready) -> object:
    plain: Callable[[], object] = {
        ReadyKind.NOTIFY: lambda: str(ReadyKind.NOTIFY),
        ReadyKind.EXEC: lambda: {str(ReadyKind.EXEC): list(ready.exec)},
    }.get(ready.kind, lambda: {str(ready.kind): ready.port})
    return plain()


def _plain_health(manifest: Manifest) -> _Plain:
    return _without_empty(
        {"exec": list(manifest.health), "probe": [plain_probe(probe) for probe in manifest.probes]}
    )


def _plain_data(data: DataFormat) -> _Plain:
    return {"mount": data.mount, "format": data.format, "reads": list(data.reads)}
