"""From YAML to the exact texts on the host: whatever a file says, their structure stays the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config.manifest import read_manifest, render_manifest
from agent.config.tree import read_tree
from agent.model.assignments import Assignments
from agent.model.errors import ConfigurationError
from agent.model.host import HostFacts
from agent.model.image import DataFormat, Image
from agent.plan.dropin import OVERHEAD_BYTES, watchdog_s
from agent.plan.guest import boot_text, signal_number
from agent.plan.host import DEFAULT_DATA_BYTES, AppliancePlan, GuestInputs, plan_host
from agent.plan.launch import HEADER, render_refusal
from tests.fakes.samples import (
    NETWORK,
    sample_facts,
    sample_files,
    sample_image,
    sample_inputs,
    sample_manifest,
)
from tests.unit.config.strategies import HOSTILE_TEXTS, hostile_texts
from tests.unit.plan.reading import read_archives, read_unit

APPLIANCE: dict[str, Any] = {
    "image": "dns-nsd",
    "network": [{"name": "default", "address": "10.88.0.53", "mac": "02:00:00:00:00:53"}],
    "memory": "48M",
    "data": "64M",
    "health": {"interval": "2s"},
    "isolation": "strict",
    "kernel": "/usr/lib/appliance/linux",
    "timezone": "Europe/Berlin",
}
NETWORK_FILE: dict[str, Any] = {
    "subnets": ["10.88.0.0/24", "fd00::/64"],
    "nameservers": ["10.88.0.1"],
    "search": ["example.test"],
    "mtu": 1500,
}
MANIFEST: dict[str, Any] = {
    "interface": 1,
    "name": "dns-nsd",
    "version": "4.6.1-1",
    "vendor": "example.org",
    "architecture": "x86_64",
    "role": "dns/1",
    "service": {
        "exec": ["/usr/sbin/nsd", "-d"],
        "prepare": ["/prepare", "x"],
        "check": ["/check", "x"],
        "ready": [{"udp": 53}, {"exec": ["/ready", "x"]}, "notify"],
        "stop": {"signal": "TERM", "timeout": "5s"},
        "environment": {"LANG": "C", "TZ": "UTC"},
    },
    "health": {"exec": ["/health", "x"]},
    "writable": ["/var/lib/nsd"],
    "data": {"mount": "/data"},
    "requests": {"memory": "32M", "ports": ["53/udp"]},
}


def make_plan(
    appliance: Any = APPLIANCE,
    manifest: Any = MANIFEST,
    network: Any = NETWORK_FILE,
    *,
    host: HostFacts | None = None,
    inputs: GuestInputs | None = None,
) -> AppliancePlan:
    """End to end: YAML texts to the plan of the appliance `dns`."""
    configuration = read_tree(
        sample_files({"dns": appliance}, networks={"default": yaml.safe_dump(network)})
    )
    image = replace(
        sample_image(), manifest=read_manifest(yaml.safe_dump(manifest).encode(), "manifest.yaml")
    )
    given_ = inputs or sample_inputs(image)
    plan = plan_host(
        configuration,
        {"dns": given_},
        host=host or sample_facts(),
        previous=Assignments(),
        runtime_digest="r",
    )
    return plan.appliances["dns"]


def boot_of(plan: AppliancePlan) -> str:
    """The boot plan out of the archive."""
    [content] = [
        entry.content for entry in read_archives(plan.guest_archive) if entry.name == "appliance/boot"
    ]
    return content.decode()


def structure(plan: AppliancePlan) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """What each text consists of when values are left out; every reader splits lines in another way."""
    for text in (plan.launch, plan.drop_in):
        assert text.splitlines() == text.split("\n")[:-1]
    launch = [line.split(" ")[0] for line in plan.launch.splitlines()]
    boot = boot_of(plan)
    assert boot.splitlines() == boot.split("\n")[:-1]
    keys = [line.split("=")[0] for line in boot.splitlines()]
    return launch, keys, [(section, key) for section, key, _ in read_unit(plan.drop_in)]


_Path = tuple[str | int, ...]


def leaves(value: Any, path: _Path = ()) -> list[_Path]:
    """The place of every scalar in a document."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in leaves(inner, (*path, index))]
    return [path]


def with_leaf(document: Any, path: _Path, value: object) -> Any:
    """The document with another scalar at one place."""
    if not path:
        return value
    if isinstance(document, dict):
        return {
            key: with_leaf(inner, path[1:], value) if key == path[0] else inner
            for key, inner in document.items()
        }
    return [
        with_leaf(inner, path[1:], value) if index == path[0] else inner
        for index, inner in enumerate(document)
    ]


BENIGN = structure(make_plan())
DOCUMENTS: tuple[Callable[[Any], AppliancePlan], ...] = (
    lambda document: make_plan(appliance=document),
    lambda document: make_plan(manifest=document),
    lambda document: make_plan(network=document),
)
PLACES = [
    (make, document, path)
    for make, document in zip(DOCUMENTS, (APPLIANCE, MANIFEST, NETWORK_FILE), strict=True)
    for path in leaves(document)
]


@given(st.sampled_from(PLACES), hostile_texts)
def test_no_value_changes_the_structure_of_a_text(place: tuple[Any, Any, _Path], value: str) -> None:
    make, document, path = place
    try:
        plan = make(with_leaf(document, path, value))
    except ConfigurationError:
        return
    assert_structure(plan)


@pytest.mark.parametrize("value", HOSTILE_TEXTS)
def test_neither_does_any_known_trick_at_any_place(value: str) -> None:
    for make, document, path in PLACES:
        try:
            plan = make(with_leaf(document, path, value))
        except ConfigurationError:
            continue
        assert_structure(plan)


def assert_structure(plan: AppliancePlan) -> None:
    launch, boot, unit = structure(plan)
    assert launch == BENIGN[0]
    # A subnet less is an address, a host name and a gateway less: counts may differ, words may not.
    assert set(boot) <= set(BENIGN[1])
    assert len(boot) <= len(BENIGN[1])
    assert unit == BENIGN[2]


@given(hostile_texts)
@example("name\n")
def test_no_environment_variable_s_name_does(name: str) -> None:
    manifest = with_leaf(MANIFEST, ("service", "environment"), {name: "value"})
    try:
        plan = make_plan(manifest=manifest)
    except ConfigurationError:
        return
    assert f"environment={name}=value\n" in boot_of(plan)
    assert set(structure(plan)[1]) <= set(BENIGN[1])


@given(st.text())
@example("a\nexec /bin/sh")
@example("a\u2028exec /bin/sh")
def test_a_refusal_is_one_line(reason: str) -> None:
    assert render_refusal(reason).splitlines()[0] == HEADER
    assert len(render_refusal(reason).splitlines()) == 2


# --- what the texts say


def test_the_launch_plan() -> None:
    plan = make_plan()
    image = plan.image
    assert image is not None
    assert plan.launch.splitlines() == [
        HEADER,
        f"image {image.digest.hex} {image.path}",
        "tap ap-dns",
        "exec /usr/lib/appliance/linux",
        "arg mem=49152K",
        "arg rdinit=/init",
        f"arg initrd={plan.initrd}",
        f"arg ubd0r={image.path}",
        "arg ubd2r=/usr/lib/appliance/tools.squashfs",
        "arg ubd1=/var/lib/appliance/appliances/dns/data.img",
        "arg ubd3r=/run/appliance/dns/names",
        "arg quiet",
        "arg noreboot",
        "arg lpj=24000000",
        "arg con=null",
        "arg con0=null,fd:1",
        "arg ssl=null",
        "arg ssl0=fd:{notify}",
        "arg uml_dir=/run/appliance/dns/uml/",
        "arg umid=guest",
        "arg seccomp=off",
        "arg vec0:transport=fd,fd={tap0},vec=0,mac=02:00:00:00:00:53",
    ]
    assert re.fullmatch(r"/run/appliance/dns/initrd-[0-9a-f]{16}", plan.initrd)


def test_the_boot_plan() -> None:
    assert boot_of(make_plan()).splitlines() == [
        "interface=1",
        "hostname=dns",
        "mtu=vec0 1500",
        "address=vec0 10.88.0.53/24",
        "host=10.88.0.53 dns",
        "gateway=10.88.0.1",
        "address=vec0 fd00::2/64",
        "host=fd00::2 dns",
        "gateway=fd00::1",
        "nameserver=10.88.0.1",
        "search=example.test",
        "tmpfs=/var/lib/nsd",
        "data=/data",
        "environment=LANG=C",
        "environment=TZ=UTC",
        "prepare=/prepare",
        "prepare=x",
        "check=/check",
        "check=x",
        "exec=/usr/sbin/nsd",
        "exec=-d",
        "health=/health",
        "health=x",
        "ready=udp 53",
        "ready=exec",
        "ready-exec=/ready",
        "ready-exec=x",
        "ready=notify",
        "ready-timeout-ms=30000",
        "stop-signal=15",
        "stop-timeout-ms=5000",
        "health-interval-ms=2000",
        "health-timeout-ms=2000",
    ]


def test_the_drop_in() -> None:
    plan = make_plan()
    assert plan.image is not None
    assert plan.drop_in.startswith(
        "# Written by appliance-agent from /etc/appliance/appliances/dns.yaml; do not edit.\n"
    )
    assert read_unit(plan.drop_in) == [
        ("[Unit]", "Description", "Appliance dns (dns-nsd 4.6.1-1)"),
        ("[Service]", "CPUAffinity", "0"),
        ("[Service]", "MemoryMax", str((48 << 20) + OVERHEAD_BYTES)),
        ("[Service]", "WatchdogSec", "10s"),
        ("[Service]", "TimeoutStartSec", "45s"),
        ("[Service]", "TimeoutStopSec", "20s"),
        ("[Service]", "LogExtraFields", "APPLIANCE_IMAGE=dns-nsd:4.6.1-1"),
        ("[Service]", "LogExtraFields", f"APPLIANCE_IMAGE_DIGEST={plan.image.digest}"),
        ("[Service]", "BindPaths", "/var/lib/appliance/appliances/dns/data.img"),
        ("[Service]", "OpenFile", "/run/systemd/notify:notify"),
        ("[Service]", "OpenFile", "/dev/net/tun:tun0"),
    ]


def test_a_host_whose_systemd_opens_no_files() -> None:
    assert read_unit(make_plan(host=sample_facts(systemd_version=252)).drop_in)[-2:] == [
        ("[Service]", "PrivateNetwork", "no"),
        ("[Service]", "PrivateDevices", "no"),
    ]


def test_a_kernel_of_the_administrator_s() -> None:
    lines = read_unit(make_plan({**APPLIANCE, "kernel": "/opt/linux"}).drop_in)
    assert ("[Service]", "BindReadOnlyPaths", "-/opt/linux") in lines
    assert ("[Service]", "ExecStop", "/usr/lib/appliance/stop dns") in lines


def test_an_image_without_data_gets_none() -> None:
    plan = make_plan(manifest={key: value for key, value in MANIFEST.items() if key != "data"})
    assert plan.data_bytes == 0
    assert "ubd1" not in plan.launch
    assert "BindPaths" not in plan.drop_in
    assert "data=" not in boot_of(plan)


@pytest.mark.parametrize(("data", "size_bytes"), [("64M", 64 << 20), (None, DEFAULT_DATA_BYTES)])
def test_the_size_of_the_data_volume(data: str | None, size_bytes: int) -> None:
    appliance = {key: value for key, value in {**APPLIANCE, "data": data}.items() if value}
    assert make_plan(appliance=appliance).data_bytes == size_bytes


def test_memory_is_what_the_image_requests_unless_given() -> None:
    appliance = {key: value for key, value in APPLIANCE.items() if key != "memory"}
    assert "arg mem=32768K\n" in make_plan(appliance=appliance).launch


def test_fast_isolation() -> None:
    assert "arg seccomp=on\n" in make_plan(appliance={**APPLIANCE, "isolation": "fast"}).launch


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (sample_inputs(refusal="kernel /x is not supported"), "kernel /x is not supported"),
        (replace(sample_inputs(), image=None), "there is no image for it"),
        (replace(sample_inputs(), image=None, refusal="There is\nno image x."), "There is no image x."),
    ],
)
def test_what_cannot_start_says_why(inputs: GuestInputs, reason: str) -> None:
    plan = make_plan(inputs=inputs)
    assert plan.launch == f"{HEADER}\nrefuse {reason}\n"
    assert (plan.initrd, plan.guest_archive) == ("", b"")


def test_nothing_random_is_in_a_plan() -> None:
    assert make_plan() == make_plan()


@pytest.mark.parametrize(
    "changed",
    [
        {"configuration": {"nsd/zone": b"other"}},
        {"local_time": b"TZif2"},
        {"image": sample_image(data=DataFormat(mount="/srv"))},
    ],
)
def test_an_initrd_is_named_by_what_is_in_it(changed: dict[str, Any]) -> None:
    assert (
        make_plan(inputs=replace(sample_inputs(), **changed)).initrd
        != make_plan(inputs=sample_inputs()).initrd
    )


def test_a_new_guest_runtime_makes_a_new_initrd() -> None:
    configuration = read_tree(sample_files())

    def initrd(runtime: str) -> str:
        plan = plan_host(
            configuration,
            {"dns": sample_inputs()},
            host=sample_facts(),
            previous=Assignments(),
            runtime_digest=runtime,
        )
        return plan.appliances["dns"].initrd

    assert initrd("old") != initrd("new")


def test_what_is_to_be_remembered() -> None:
    configuration = read_tree(sample_files({"a": "image: x", "b": "image: x"}))
    inputs = {name: sample_inputs() for name in "ab"}
    first = plan_host(configuration, inputs, host=sample_facts(), previous=Assignments(), runtime_digest="r")
    again = plan_host(
        configuration, inputs, host=sample_facts(), previous=first.assignments, runtime_digest="r"
    )
    assert first.assignments == again.assignments
    assert first.assignments.cores == {"a": 0, "b": 1}


def test_guests_use_the_host_s_resolvers_where_the_network_names_none() -> None:
    network = read_tree(sample_files(networks={"default": NETWORK}))
    inputs = {"dns": sample_inputs()}
    plan = plan_host(network, inputs, host=sample_facts(), previous=Assignments(), runtime_digest="r")
    assert "nameserver=192.0.2.53\n" in boot_of(plan.appliances["dns"])


@pytest.mark.parametrize(("interval_s", "expected_s"), [(0.1, 2.0), (2.0, 10.0), (60.0, 300.0)])
def test_how_long_a_guest_may_be_silent(interval_s: float, expected_s: float) -> None:
    assert watchdog_s(interval_s) == expected_s


@pytest.mark.parametrize(("name", "number"), [("TERM", 15), ("INT", 2), ("WINCH", 28)])
def test_signals(name: str, number: int) -> None:
    assert signal_number(name) == number


def test_a_boot_plan_refuses_what_no_reader_let_through() -> None:
    image: Image = sample_image()
    appliance = read_tree(sample_files()).appliances["dns"]
    bad = replace(image.manifest, service=replace(image.manifest.service, exec=("/a\nexec=/b",)))
    with pytest.raises(ValueError, match="does not fit on one line"):
        boot_text(appliance, bad, (), ())


def test_every_manifest_the_samples_use_is_valid() -> None:
    manifest = sample_manifest()
    assert read_manifest(render_manifest(manifest).encode(), "m") == manifest
