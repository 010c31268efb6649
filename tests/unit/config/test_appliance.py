"""appliance.yaml(5): defaults, and every refusal with its place."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from agent.config.appliance import read_appliance
from agent.config.document import Findings, read_document
from agent.model.appliance import KERNEL, Appliance, Isolation, UpdateSettings
from agent.model.image import ImageReference
from agent.model.network import Attachment
from agent.model.probe import DnsProbe, PingProbe, Probe
from agent.model.update import Group, Policy, Window


def read(text: str) -> tuple[Appliance, list[str]]:
    findings = Findings("dns.yaml")
    appliance = read_appliance("dns", read_document(text, findings), default_network="default")
    return appliance, [str(finding) for finding in findings.items]


def test_an_image_is_enough() -> None:
    expected = Appliance(
        name="dns",
        image=ImageReference(name="dns-nsd", version="4.6"),
        networks=(Attachment("default"),),
        memory_bytes=0,
        data_bytes=0,
        health_interval_s=2.0,
        isolation=Isolation.STRICT,
        kernel=KERNEL,
        time_zone="",
    )
    assert read("image: dns-nsd:4.6") == (expected, [])
    assert (expected.unit, expected.user) == ("appliance@dns.service", "appliance-dns")


def test_everything_at_once() -> None:
    text = """
image: dns-nsd
network:
  - lan
  - {name: default, address: [10.88.0.53, "fd00::53"], mac: 02:00:00:00:00:53}
memory: 48M
data: 256M
health: {interval: 500ms}
isolation: fast
kernel: /opt/linux
timezone: Europe/Berlin
"""
    appliance, findings = read(text)
    assert findings == []
    assert appliance.networks == (
        Attachment("lan"),
        Attachment("default", (ip_address("10.88.0.53"), ip_address("fd00::53")), "02:00:00:00:00:53"),
    )
    assert (appliance.memory_bytes, appliance.data_bytes) == (48 << 20, 256 << 20)
    assert (appliance.health_interval_s, appliance.isolation) == (0.5, Isolation.FAST)
    assert (appliance.kernel, appliance.time_zone) == ("/opt/linux", "Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory: 48M", ["dns.yaml:1:1: “image” is missing"]),
        ("image: a b", ["dns.yaml:1:8: image: “a b” is no image: name, name:version or sha256:… expected"]),
        ("image: a\nmemory: 15M", ["dns.yaml:2:9: memory: 15M is out of range (16M to 1T)"]),
        ("image: a\nnetwork: [lan, lan]", ["dns.yaml:2:10: network: network “lan” is given twice"]),
        ("image: a\nnetwork: {address: 1.2.3.4}", ["dns.yaml:2:10: network: “name” is missing"]),
        (
            "image: a\nnetwork:\n- {name: l, address: x}",
            ["dns.yaml:3:22: network[0].address: “x” is not an IP address"],
        ),
        (
            "image: a\nhealth: {interval: 1ms}",
            ["dns.yaml:2:20: health.interval: 1ms is out of range (100ms to 3600s)"],
        ),
        (
            "image: a\nhealth: {probe: {tcp: 0}, probes: ping}",
            [
                "dns.yaml:2:23: health.probe.tcp: a number from 1 to 65535 expected, found 0",
                "dns.yaml:2:27: “health.probes” is not a known key; known here: interval, probe",
            ],
        ),
        (
            "image: a\nkernel: ../linux",
            ["dns.yaml:2:9: kernel: “../linux” is not an absolute path in its plain form"],
        ),
        (
            "image: a\nkernel: /opt/a b:c",
            ["dns.yaml:2:9: kernel: “/opt/a b:c” has other characters than letters, digits and /._+-"],
        ),
        (
            "image: a\ntimezone: ../../etc/shadow",
            ["dns.yaml:2:11: timezone: “../../etc/shadow” is not a time zone such as Europe/Berlin"],
        ),
    ],
)
def test_refusals(text: str, expected: list[str]) -> None:
    assert read(text)[1] == expected


@pytest.mark.parametrize(
    ("health", "probes"),
    [
        ("{}", None),
        ("{interval: 1s}", None),
        ("{probe: none}", ()),
        ("{probe: ping}", (PingProbe(),)),
        ("{probe: {dns: {name: example.test}}}", (DnsProbe("example.test"),)),
    ],
)
def test_probes_are_those_of_the_image_unless_the_administrator_says_so(
    health: str, probes: tuple[Probe, ...] | None
) -> None:
    appliance, findings = read(f"image: a\nhealth: {health}")
    assert (appliance.probes, findings) == (probes, [])


def test_updates() -> None:
    text = "image: a\nupdate: {policy: auto, window: Sun 03:00-05:00, soak: 1min, keep: 2}\ngroup: web"
    appliance, findings = read(text)
    assert (appliance.update, findings) == (UpdateSettings(60.0, 2, Policy.AUTO, Window((6,), 180, 120)), [])
    assert appliance.group == Group("web", 1)
    assert read("image: a\ngroup: {name: dns, healthy: 2}") == (
        replace(read("image: a")[0], group=Group("dns", 2)),
        [],
    )
    assert read("image: a\nupdate: {}")[0].update == UpdateSettings(policy=Policy.MANUAL, window=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "update: {policy: always}",
            "2:18: update.policy: one of manual, stage, auto expected, found “always”",
        ),
        ("update: {window: Sun}", "2:18: update.window: “Sun” is not a window such as Sun 03:00-05:00"),
        ("update: {window: [a]}", "2:18: update.window: text expected, found a list"),
        ("update:\n  window: 3-5", "3:11: update.window: “3-5” is not a window such as Sun 03:00-05:00"),
        ("update: auto", "2:9: update: a mapping expected, found “auto”"),
        ("group: a b", "2:8: group: “a b” is no group name"),
        ("group: {healthy: 1}", "2:8: group: “name” is missing"),
        ("group: {name: a, healthy: -1}", "2:27: group.healthy: a number from 0 to 1000 expected, found -1"),
        ("group: {name: a, size: 1}", "2:18: “group.size” is not a known key; known here: healthy, name"),
        ("group: [a, b]", "2:8: group: text expected, found a list"),
    ],
)
def test_refusals_of_updates(text: str, expected: str) -> None:
    [finding] = read(f"image: a\n{text}")[1]
    assert finding.startswith(f"dns.yaml:{expected}")


def test_all_errors_come_at_once() -> None:
    text = """\
image: 1 2
memory: lots
data: 1K
isolation: none
kernel: linux
timezone: o clock
nonsense: 1
"""
    places = [finding.split(": ")[0] for finding in read(text)[1]]
    assert places == [
        f"dns.yaml:{line}:{column}"
        for line, column in ((1, 8), (2, 9), (3, 7), (4, 12), (5, 9), (6, 11), (7, 1))
    ]


@pytest.mark.parametrize("value", [[], {}, None, [[]], [{}], 5, [None]])
def test_networks_of_any_shape_are_answered(value: Any) -> None:
    appliance, findings = read(f"image: a\nnetwork: {value if value is not None else ''}")
    assert findings or all(attachment.network for attachment in appliance.networks)
