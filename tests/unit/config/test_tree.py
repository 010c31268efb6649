"""The configuration as a whole: every finding in every file at once, with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.tree import ConfigurationFiles, parse_cores, read_tree
from agent.model.errors import ConfigurationError
from agent.model.names import NAME_RULE
from tests.fakes.samples import DIRECTORY, NETWORK, sample_files
from tests.unit.config.strategies import hostile_texts, values

LAN = "subnets: [10.1.0.0/24, 'fd01::/64']\n"
KEYS = ("image", "network", "memory", "data", "health", "isolation", "kernel", "timezone", "publish", "x")


def findings(files: ConfigurationFiles) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_tree(files)
    assert str(caught.value).split("\n") == [str(finding) for finding in caught.value.findings]
    return [str(finding).removeprefix(f"{DIRECTORY}/") for finding in caught.value.findings]


def test_a_valid_tree() -> None:
    files = sample_files(
        {"web": "image: a", "dns": "image: b"},
        networks={"lan": LAN},
        agent="default-network: lan\ncores: 0-1,3",
    )
    configuration = read_tree(files)
    assert list(configuration.appliances) == ["dns", "web"]
    assert [appliance.networks[0].network for appliance in configuration.appliances.values()] == [
        "lan",
        "lan",
    ]
    assert configuration.agent.cores == (0, 1, 3)


def test_nothing_at_all_is_valid() -> None:
    configuration = read_tree(ConfigurationFiles({}, {}, {}))
    assert (dict(configuration.networks), dict(configuration.appliances)) == ({}, {})


def test_fragments_apply_on_top_of_each_other() -> None:
    files = ConfigurationFiles({"a": b"cores: 1-3\ndefault-network: x\n", "b": b"cores: '2'\n"}, {}, {})
    settings = read_tree(files).agent
    assert (settings.cores, settings.default_network) == ((2,), "x")


NO_SUBNET = "is not a subnet such as 10.88.0.0/24 (host bits must be zero)"
# Where the value of `network:` stands in these files.
AT = "appliances/dns.yaml:2:10: network: "
AT_WEB = "appliances/web.yaml:2:10: network: "


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("lan", "there is no network “lan”; known: default"),
        (
            "{name: default, address: 10.89.0.5}",
            "10.89.0.5 is outside of network “default” (10.88.0.0/24)",
        ),
        (
            "{name: default, address: [10.88.0.5, 10.88.0.6]}",
            "at most one IPv4 and one IPv6 address for each network expected",
        ),
        *(
            (
                f"{{name: default, address: {address}}}",
                f"{address} is taken: network, broadcast, gateway or the host's own address in 10.88.0.0/24",
            )
            for address in ("10.88.0.0", "10.88.0.1", "10.88.0.255")
        ),
    ],
)
def test_attachments_that_do_not_fit_their_network(network: str, expected: str) -> None:
    assert findings(sample_files({"dns": f"image: a\nnetwork: {network}"})) == [f"{AT}{expected}"]


@pytest.mark.parametrize("claim", ["address: 10.88.0.5", "mac: '02:00:00:00:00:01'"])
def test_what_two_appliances_claim(claim: str) -> None:
    text = f"image: a\nnetwork: {{name: default, {claim}}}"
    what = claim.partition(": ")[2].strip("'")
    first = f"{DIRECTORY}/appliances/dns.yaml:2"
    assert findings(sample_files({"dns": text, "web": text})) == [
        f"{AT_WEB}{what} is given to “dns” too ({first})",
    ]


def test_networks_that_overlap() -> None:
    files = sample_files({}, networks={"a": NETWORK, "b": "subnets: [10.88.0.128/25]"})
    assert findings(files) == [
        "networks/b.yaml:1:10: subnets: 10.88.0.128/25 overlaps 10.88.0.0/24 of network “a”",
    ]


def test_no_network_at_all() -> None:
    files = sample_files(networks={})
    assert findings(files) == ["appliances/dns.yaml:1:1: there is no network “default”; known: none"]


@pytest.mark.parametrize("name", ["No Unit", "-x", "a" * 22])
def test_file_names_that_name_no_appliance(name: str) -> None:
    assert findings(sample_files({name: "image: a"})) == [
        f"appliances/{name}.yaml: file name: “{name}” is no appliance name: at most 21 {NAME_RULE}",
    ]


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("cores: many", "1:8: cores: “many” is not a list of cores such as 0-3,6"),
        ("cores: 0,3-1", "1:8: cores: “0,3-1” is not a list of cores such as 0-3,6"),
        ("core: 1", "1:1: “core” is not a known key; known here: cores, default-network, host-names"),
        ("default-network: A", f"1:18: default-network: “A” is no network name: at most 12 {NAME_RULE}"),
    ],
)
def test_the_agent_s_own_settings(agent: str, expected: str) -> None:
    assert findings(sample_files({}, agent=agent)) == [f"agent.yaml:{expected}"]


def test_every_file_is_read_however_wrong_the_others_are() -> None:
    files = sample_files(
        {"a": "image: [", "b": "memory: 1", "c": b"\xff", "d": "image: x\nnetwork: nowhere"},
        networks={"default": "subnets: 5\nmtu: 1"},
        agent="cores: []",
    )
    assert findings(files) == [
        "agent.yaml:1:8: cores: text expected, found a list",
        "appliances/a.yaml:2:1: did not find expected node content",
        "appliances/b.yaml:1:1: “image” is missing",
        "appliances/b.yaml:1:9: memory: 1 is out of range (16M to 1T)",
        "appliances/c.yaml: not UTF-8: invalid start byte at byte 0",
        "appliances/d.yaml:2:10: network: there is no network “nowhere”; known: default",
        f"networks/default.yaml:1:10: subnets: “5” {NO_SUBNET}",
        "networks/default.yaml:2:6: mtu: a number from 1280 to 9000 expected, found 1",
    ]


def findings_if_any(files: ConfigurationFiles) -> list[str]:
    """Of files that may happen to be valid; any other error is a failure."""
    try:
        read_tree(files)
    except ConfigurationError as error:
        return [str(finding) for finding in error.findings]
    return []


@given(st.dictionaries(hostile_texts, st.binary(max_size=40), max_size=3))
def test_file_names_and_bytes_give_only_findings(files: dict[str, bytes]) -> None:
    named = {f"{DIRECTORY}/appliances/{name}.yaml": content for name, content in files.items()}
    assert all(map(str.isprintable, findings_if_any(ConfigurationFiles({}, {}, named))))


@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=5))
def test_values_of_any_shape_give_only_findings(mapping: dict[str, object]) -> None:
    assert all(map(str.isprintable, findings_if_any(sample_files({"dns": mapping}))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ()), ("0", (0,)), ("0-3\n", (0, 1, 2, 3)), ("3,0-1", (0, 1, 3)), ("1,1", (1,))],
)
def test_cores(text: str, expected: tuple[int, ...]) -> None:
    assert parse_cores(text) == expected
