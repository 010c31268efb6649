"""What the guest runtime is told: the `/appliance` directory of its initial file system
(docs/interface-1.md)."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping

from agent.model.address import Address
from agent.model.appliance import Appliance
from agent.model.image import Manifest, Ready, ReadyKind
from agent.model.network import Port

_Line = tuple[str, str]

HEALTH_TIMEOUT_S = 2.0


def boot_text(
    appliance: Appliance, manifest: Manifest, ports: tuple[Port, ...], nameservers: tuple[Address, ...]
) -> str:
    """`/appliance/boot`: one `key=value` on a line, repeated keys make lists."""
    return _text(
        [
            ("interface", str(manifest.interface)),
            ("hostname", appliance.name),
            *_network_lines(appliance, ports, nameservers),
            *_tmpfs_lines(manifest),
            *([("data", manifest.data.mount)] if manifest.data else []),
            *_service_lines(appliance, manifest),
        ]
    )


def check_text(appliance: Appliance, manifest: Manifest) -> str:
    """`/appliance/boot` of a guest that ends after the image's check: without network, and with an empty
    directory in place of the data volume."""
    return _text(
        [
            ("interface", str(manifest.interface)),
            ("hostname", appliance.name),
            ("until", "check"),
            *_tmpfs_lines(manifest),
            *([("tmpfs", manifest.data.mount)] if manifest.data else []),
            *_service_lines(appliance, manifest),
        ]
    )


def _text(lines: Iterable[_Line]) -> str:
    text = ""
    for key, value in lines:
        if not value.isprintable():
            raise ValueError(f"{key}={value!r} does not fit on one line")
        text += f"{key}={value}\n"
    return text


def _tmpfs_lines(manifest: Manifest) -> Iterator[_Line]:
    return (("tmpfs", path) for path in manifest.writable if path not in {"/run", "/tmp"})  # noqa: S108


def _network_lines(
    appliance: Appliance, ports: tuple[Port, ...], nameservers: tuple[Address, ...]
) -> Iterator[_Line]:
    for port in ports:
        device = f"vec{port.index}"
        yield "mtu", f"{device} {port.network.mtu}"
        for address in port.addresses:
            subnet = next(subnet for subnet in port.network.subnets if address in subnet)
            yield "address", f"{device} {address}/{subnet.prefixlen}"
            yield "host", f"{address} {appliance.name}"
            gateway = port.network.gateway(subnet)
            if port.default_route and gateway:
                yield "gateway", str(gateway)
    for server in (ports[0].network.nameservers or nameservers) if ports else ():
        yield "nameserver", str(server)
    for domain in ports[0].network.search if ports else ():
        yield "search", domain


def _service_lines(appliance: Appliance, manifest: Manifest) -> Iterator[_Line]:
    service = manifest.service
    yield from _list("environment", (f"{name}={value}" for name, value in service.environment))
    yield from _list("prepare", service.prepare)
    yield from _list("check", service.check)
    yield from _list("exec", service.exec)
    yield from _list("health", manifest.health)
    yield from _list("reload", service.reload_exec)
    if service.reload_signal:
        yield "reload-signal", str(signal_number(service.reload_signal))
    for ready in service.ready:
        yield "ready", _ready(ready)
        yield from _list("ready-exec", ready.exec)
    yield "ready-timeout-ms", _milliseconds(service.ready_timeout_s)
    yield "stop-signal", str(signal_number(service.stop_signal))
    yield "stop-timeout-ms", _milliseconds(service.stop_timeout_s)
    yield "health-interval-ms", _milliseconds(appliance.health_interval_s)
    yield "health-timeout-ms", _milliseconds(HEALTH_TIMEOUT_S)


def _list(key: str, values: Iterable[str]) -> Iterator[_Line]:
    return ((key, value) for value in values)


def _ready(ready: Ready) -> str:
    return f"{ready.kind} {ready.port}" if ready.kind in {ReadyKind.TCP, ReadyKind.UDP} else str(ready.kind)


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def signal_number(name: str) -> int:
    """`TERM` → 15. The numbers of x86-64 hold on both sides of the interface."""
    return int(signal.Signals[f"SIG{name}"])


def guest_files(boot: str, configuration: Mapping[str, bytes], local_time: bytes) -> dict[str, bytes]:
    """The files of the second archive by path; `configuration` holds the administrator's, by relative
    path."""
    files = {"appliance/boot": boot.encode()}
    files.update({f"appliance/config/{name}": content for name, content in configuration.items()})
    if local_time:
        files["appliance/localtime"] = local_time
    return files
