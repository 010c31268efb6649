"""The guest that lints a configuration: sandboxed like the appliance, with nothing to lose or to answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.errors import ConfigurationError
from agent.model.host import HostFacts
from agent.plan.check import CheckPlan, plan_check
from agent.plan.dropin import OVERHEAD_BYTES
from tests.fakes.samples import sample_facts
from tests.unit.config.strategies import HOSTILE_TEXTS, hostile_texts
from tests.unit.plan.reading import read_archives, read_unit
from tests.unit.plan.test_host import APPLIANCE, MANIFEST, leaves, make_plan, with_leaf


def make_check(
    appliance: Any = APPLIANCE, manifest: Any = MANIFEST, host: HostFacts | None = None
) -> CheckPlan:
    """End to end: YAML texts to the check of the appliance `dns`."""
    host = host or sample_facts()
    plan = make_plan(appliance, manifest, host=host)
    assert plan.image is not None
    return plan_check(plan, plan.image, host=host, runtime_digest="r")


def files_of(check: CheckPlan) -> dict[str, str]:
    return {entry.name: entry.content.decode() for entry in read_archives(check.guest_archive)}


def boot_of(check: CheckPlan) -> list[str]:
    return files_of(check)["appliance/boot"].splitlines()


def test_the_drop_in() -> None:
    assert read_unit(make_check().drop_in) == [
        ("[Unit]", "Description", "Configuration check of dns (dns-nsd 4.6.1-1)"),
        ("[Service]", "Type", "oneshot"),
        ("[Service]", "Restart", "no"),
        ("[Service]", "WatchdogSec", "0"),
        ("[Service]", "TimeoutStartSec", "45s"),
        ("[Service]", "User", "appliance-dns"),
        ("[Service]", "Group", "appliance-dns"),
        ("[Service]", "CPUAffinity", "0"),
        ("[Service]", "MemoryMax", str((48 << 20) + OVERHEAD_BYTES)),
        ("[Service]", "SyslogIdentifier", "dns"),
        ("[Service]", "LogExtraFields", ""),
        ("[Service]", "LogExtraFields", "APPLIANCE=dns"),
        ("[Service]", "LogExtraFields", "APPLIANCE_IMAGE=dns-nsd:4.6.1-1"),
        ("[Service]", "OpenFile", "/run/systemd/notify:notify"),
    ]


def test_a_kernel_of_the_administrator_s() -> None:
    lines = read_unit(make_check({**APPLIANCE, "kernel": "/opt/linux"}).drop_in)
    assert ("[Service]", "BindReadOnlyPaths", "-/opt/linux") in lines


def test_a_host_whose_systemd_opens_no_files() -> None:
    assert "OpenFile" not in make_check(host=sample_facts(systemd_version=252)).drop_in


def test_the_boot_plan_ends_with_the_check_and_knows_no_network() -> None:
    boot = boot_of(make_check())
    assert boot[:5] == ["interface=1", "hostname=dns", "until=check", "tmpfs=/var/lib/nsd", "tmpfs=/data"]
    keys = {line.split("=")[0] for line in boot}
    assert not keys & {"address", "gateway", "host", "mtu", "nameserver", "search", "data"}
    assert {"check=/check", "prepare=/prepare", "exec=/usr/sbin/nsd", "environment=LANG=C"} <= set(boot)


def test_without_data_there_is_no_place_for_them() -> None:
    manifest = {key: value for key, value in MANIFEST.items() if key != "data"}
    assert [line for line in boot_of(make_check(manifest=manifest)) if line.startswith("tmpfs=")] == [
        "tmpfs=/var/lib/nsd"
    ]


def test_the_launch_plan_has_neither_network_nor_data() -> None:
    check = make_check()
    directives = [line.split(" ")[0] for line in check.launch.splitlines()]
    assert "tap" not in directives
    assert not [word for word in ("ubd1=", "vec0", "/run/appliance/dns/") if word in check.launch]
    assert "arg uml_dir=/run/appliance/dns.check/uml/\n" in check.launch
    assert f"arg initrd={check.initrd}\n" in check.launch
    assert check.initrd.startswith("/run/appliance/dns.check/initrd-")
    assert (check.appliance, check.instance) == ("dns", "dns.check")


def test_it_lints_what_the_appliance_would_be_given() -> None:
    assert files_of(make_check())["appliance/config/nsd/zone"] == "example.test\n"
    assert files_of(make_check())["appliance/localtime"] == "TZif"


def test_nothing_random_is_in_it() -> None:
    assert make_check() == make_check()


def structure(check: CheckPlan) -> tuple[list[str], set[str], list[tuple[str, str]]]:
    """What each text consists of when values are left out."""
    boot = files_of(check)["appliance/boot"]
    for text in (check.launch, check.drop_in, boot):
        assert text.splitlines() == text.split("\n")[:-1]
    return (
        [line.split(" ")[0] for line in check.launch.splitlines()],
        {line.split("=")[0] for line in boot.splitlines()},
        [(section, key) for section, key, _ in read_unit(check.drop_in)],
    )


BENIGN = structure(make_check())
PLACES = [
    *(("appliance", path) for path in leaves(APPLIANCE)),
    *(("manifest", path) for path in leaves(MANIFEST)),
]


def assert_structure(kind: str, path: Any, value: str) -> None:
    document = with_leaf(APPLIANCE if kind == "appliance" else MANIFEST, path, value)
    try:
        check = make_check(**{kind: document})
    except ConfigurationError:
        return
    launch, boot, unit = structure(check)
    assert (launch, unit) == (BENIGN[0], BENIGN[2])
    assert boot <= BENIGN[1]


@given(st.sampled_from(PLACES), hostile_texts)
def test_no_value_changes_the_structure_of_a_text(place: tuple[str, Any], value: str) -> None:
    assert_structure(*place, value)


@pytest.mark.parametrize("value", HOSTILE_TEXTS)
def test_neither_does_any_known_trick_at_any_place(value: str) -> None:
    for place in PLACES:
        assert_structure(*place, value)


def test_a_value_that_no_reader_let_through_is_not_written() -> None:
    plan = make_plan()
    assert plan.image is not None
    manifest = replace(plan.image.manifest, version="1\nExecStart=/bin/sh")
    with pytest.raises(ValueError, match="cannot stand in a unit file"):
        plan_check(plan, replace(plan.image, manifest=manifest), host=sample_facts(), runtime_digest="r")
