"""Assignments survive the agent; a file that cannot be read costs no more than the assignments."""

from __future__ import annotations

import ipaddress
import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.assignments import read_assignments, write_assignments
from agent.model.assignments import Assignments

names = st.text(alphabet="abc-", min_size=1, max_size=5)
leases = st.dictionaries(names, st.lists(st.ip_addresses(), max_size=2).map(tuple), max_size=3)
networks = st.builds(
    lambda address, length: ipaddress.ip_network(
        (address, min(length, address.max_prefixlen)), strict=False
    ),
    st.ip_addresses(),
    st.integers(0, 128),
)
assignments = st.builds(
    Assignments,
    addresses=st.dictionaries(names, leases, max_size=3),
    cores=st.dictionaries(names, st.integers(0, 99), max_size=3),
    subnets=st.dictionaries(names, st.lists(networks, max_size=2).map(tuple), max_size=3),
)

# The directory is the same for all examples, and each writes the file anew.
same_directory = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_directory
@given(assignments)
def test_what_is_written_is_read_back(tmp_path: Path, given_: Assignments) -> None:
    path = tmp_path / "assignments.json"
    write_assignments(path, given_)
    assert read_assignments(path) == given_
    assert write_assignments(path, given_) is False


def test_no_file_no_assignments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_assignments(tmp_path / "none") == Assignments()
    assert not caplog.records


def test_a_file_from_before_networks_were_given_subnets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "assignments.json"
    path.write_text('{"version": 1, "addresses": {"lan": {"dns": ["10.88.0.53"]}}, "cores": {"dns": 1}}')
    assert read_assignments(path) == Assignments(
        addresses={"lan": {"dns": (ipaddress.ip_address("10.88.0.53"),)}}, cores={"dns": 1}
    )
    assert not caplog.records


BROKEN = (
    "",
    "{",
    "null",
    "[]",
    "7",
    '"x"',
    "{}",
    '{"version": 1}',
    '{"version": 2, "addresses": {}, "cores": {}}',
    '{"version": 1, "addresses": [], "cores": {}}',
    '{"version": 1, "addresses": {"n": []}, "cores": {}}',
    '{"version": 1, "addresses": {"n": {"a": "10.0.0.1"}}, "cores": {}}',
    '{"version": 1, "addresses": {"n": {"a": 5}}, "cores": {}}',
    '{"version": 1, "addresses": {"n": {"a": [null]}}, "cores": {}}',
    '{"version": 1, "addresses": {}, "cores": {"a": "x"}}',
    '{"version": 1, "addresses": {}, "cores": {"a": Infinity}}',
    '{"version": 1, "addresses": {}, "cores": {"a": NaN}}',
    '{"version": 1, "addresses": {}, "cores": {"a": null}}',
    '{"version": 1, "addresses": {}, "cores": {}, "subnets": null}',
    '{"version": 1, "addresses": {}, "cores": {}, "subnets": []}',
    '{"version": 1, "addresses": {}, "cores": {}, "subnets": {"n": null}}',
    '{"version": 1, "addresses": {}, "cores": {}, "subnets": {"n": "10.0.0.0/24"}}',
    '{"version": 1, "addresses": {}, "cores": {}, "subnets": {"n": ["10.0.0.1/24"]}}',
    '{"version": 1, "addresses": {}, "cores": {}, "subnets": {"n": [null]}}',
    "[" * 100_000,
)


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_said_once_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "assignments.json"
    path.write_text(content)
    assert read_assignments(path) == Assignments()
    [record] = caplog.records
    assert (record.levelno, "addresses are assigned anew, ignoring" in record.message) == (
        logging.WARNING,
        True,
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "addresses", "cores", "subnets", "a"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@same_directory
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_content_is_read_or_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "assignments.json"
    path.write_bytes(content)
    found = read_assignments(path)
    assert all(isinstance(core, int) for core in found.cores.values())
    assert all(
        isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
        for leases_ in found.addresses.values()
        for addresses in leases_.values()
        for address in addresses
    )
    assert all(
        isinstance(subnet, ipaddress.IPv4Network | ipaddress.IPv6Network)
        for subnets in found.subnets.values()
        for subnet in subnets
    )
