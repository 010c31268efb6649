"""The configuration as a whole: every finding in every file at once, with its place."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.tree import ConfigurationFiles, parse_cores, read_tree
from agent.model.address import Subnet
from agent.model.errors import ConfigurationError
from agent.model.names import NAME_RULE
from agent.model.network import Network
from tests.fakes.samples import DIRECTORY, NETWORK, sample_files
from tests.unit.config.strategies import hostile_texts, values

LAN = "subnets: [10.1.0.0/24, 'fd01::/64']\n"
SUBNET = "a subnet such as 10.88.0.0/24 (host bits must be zero)"
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
# --- appliances and their networks

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


BRIDGED = "kind: bridged\nsubnets: [192.0.2.0/24]\n"


@pytest.mark.parametrize("kind", ["nat", "isolated"])
def test_a_network_of_the_host_s_own_shares_its_subnet_with_no_lan(kind: str) -> None:
    files = sample_files(
        {}, networks={"a": f"{BRIDGED}bridge: br0\n", "b": f"kind: {kind}\nsubnets: [192.0.2.0/25]\n"}
    )
    assert findings(files) == [
        "networks/b.yaml:2:10: subnets: 192.0.2.0/25 overlaps 192.0.2.0/24 of network “a”",
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("uplink: eth1", "uplink: eth1", "networks/b.yaml:3:9: uplink: eth1 is network “a” already"),
        ("bridge: br0", "bridge: br0", "networks/b.yaml:3:9: bridge: br0 is network “a” already"),
        (
            "uplink: eth1\nvlan: 7",
            "vlan: 7\nuplink: eth1",
            "networks/b.yaml:4:9: uplink: VLAN 7 of eth1 is network “a” already",
        ),
    ],
)
def test_two_networks_that_are_the_same_lan(first: str, second: str, expected: str) -> None:
    files = sample_files({}, networks={"a": f"{BRIDGED}{first}\n", "b": f"{BRIDGED}{second}\n"})
    assert findings(files) == [expected]


def test_lans_are_told_apart_by_uplink_bridge_and_vlan() -> None:
    places = (
        "uplink: eth1",
        "uplink: eth1\nvlan: 7",
        "uplink: eth1\nvlan: 8",
        "uplink: eth2",
        "bridge: br0",
    )
    networks = {f"n{number}": f"{BRIDGED}{place}\n" for number, place in enumerate(places)}
    assert len(read_tree(sample_files({}, networks=networks)).networks) == len(places)


POOLED = f"{BRIDGED}bridge: br0\npool: [192.0.2.128/25]\ngateway: 192.0.2.254\n"


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("lan", ""),
        ("{name: lan, vlan: 7}", ""),
        ("{name: lan, address: 192.0.2.5}", ""),
        ("{name: lan, default-route: no}", ""),
        ("[{name: lan, default-route: yes}, default]", ""),
        ("bare", "network “bare” has no pool to take an address from in 192.0.2.0/24: give one"),
        ("{name: bare, address: 192.0.2.5}", ""),
        ("{name: bare, address: 192.0.2.1}", ""),
        ("{name: default, vlan: 7}", "network “default” has no VLANs: it is not a bridged one"),
        ("{name: default, default-route: yes}", "network “default” leads nowhere: no default route"),
        (
            "{name: bare, address: 192.0.2.5, default-route: yes}",
            "network “bare” leads nowhere: no default route",
        ),
        (
            "[{name: lan, default-route: yes}, {name: out, default-route: on}]",
            "only one network can have the default route",
        ),
    ],
)
def test_attachments_to_networks_of_every_kind(network: str, expected: str) -> None:
    networks = {
        "default": NETWORK,
        "out": "subnets: [10.1.0.0/24]\n",
        "lan": POOLED,
        "bare": f"{BRIDGED}bridge: br1\n",
    }
    files = sample_files({"dns": f"image: a\nnetwork: {network}\n"}, networks=networks)
    assert findings_if_any(files) == ([f"{DIRECTORY}/{AT}{expected}"] if expected else [])


def test_a_pool_is_wanted_for_each_family_of_which_no_address_is_given() -> None:
    lan = "kind: bridged\nsubnets: [192.0.2.0/24, '2001:db8::/64']\nbridge: br0\npool: '2001:db8::/112'\n"
    wrong = "network “lan” has no pool to take an address from in 192.0.2.0/24: give one"
    for network, expected in (("lan", [f"{AT}{wrong}"]), ("{name: lan, address: 192.0.2.5}", [])):
        files = sample_files({"dns": f"image: a\nnetwork: {network}\n"}, networks={"lan": lan})
        assert findings_if_any(files) == [f"{DIRECTORY}/{finding}" for finding in expected]


def test_the_gateway_of_a_lan_is_no_appliance_s_address() -> None:
    files = sample_files(
        {"dns": "image: a\nnetwork: {name: lan, address: 192.0.2.254}\n"},
        networks={"lan": POOLED},
    )
    taken = "network, broadcast, gateway or the host's own address in 192.0.2.0/24"
    assert findings(files) == [f"{AT}192.0.2.254 is taken: {taken}"]


def test_an_address_of_two_lans_is_given_twice() -> None:
    """Each network has its own: the same address in two of them is nobody's mistake."""
    networks = {"a": f"{BRIDGED}uplink: eth1\n", "b": f"{BRIDGED}uplink: eth2\n"}
    appliances = {name: f"image: x\nnetwork: {{name: {name}, address: 192.0.2.5}}\n" for name in networks}
    assert read_tree(sample_files(appliances, networks=networks)).appliances.keys() == {"a", "b"}


# --- subnets that somebody else chooses


def test_automatic_networks_have_the_subnets_that_were_chosen() -> None:
    asked: list[dict[str, tuple[Subnet, ...]]] = []

    def choose(networks: Mapping[str, Network]) -> dict[str, tuple[Subnet, ...]]:
        asked.append({name: network.subnets for name, network in networks.items()})
        return {"default": (ip_network("172.24.0.0/24"),)}

    networks = {"default": "", "lan": LAN, "in": "kind: isolated\nsubnets: auto\n"}
    configuration = read_tree(sample_files(networks=networks), choose)
    assert asked == [{"default": (), "in": (), "lan": (ip_network("10.1.0.0/24"), ip_network("fd01::/64"))}]
    assert configuration.networks["default"].subnets == (ip_network("172.24.0.0/24"),)
    assert [name for name, network in configuration.networks.items() if network.automatic] == [
        "default",
        "in",
    ]


def test_addresses_are_looked_for_in_what_was_chosen() -> None:
    files = sample_files(
        {"dns": "image: a\nnetwork: {name: default, address: 10.88.0.53}\n"}, networks={"default": ""}
    )
    assert read_tree(files).appliances["dns"].networks[0].addresses == (ip_address("10.88.0.53"),)
    assert "dns" in read_tree(files, lambda _: {"default": (ip_network("10.88.0.0/24"),)}).appliances
    with pytest.raises(ConfigurationError) as caught:
        read_tree(files, lambda _: {"default": (ip_network("10.88.1.0/24"),)})
    [finding] = caught.value.findings
    assert str(finding) == f"{DIRECTORY}/{AT}10.88.0.53 is outside of network “default” (10.88.1.0/24)"


# --- peers and published ports


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ("web", []),
        ("[web, web]", []),
        ("dns", ["appliances/dns.yaml:3:8: peers: it is its own peer"]),
        ("nobody", ["appliances/dns.yaml:3:8: peers: there is no appliance “nobody”"]),
        ("far", ["appliances/dns.yaml:3:8: peers: “far” is in none of its networks"]),
        (
            "[dns, nobody, web]",
            [
                "appliances/dns.yaml:3:8: peers: it is its own peer",
                "appliances/dns.yaml:3:8: peers: there is no appliance “nobody”",
            ],
        ),
        ("[A]", [f"appliances/dns.yaml:3:9: peers[0]: “A” is no appliance name: at most 21 {NAME_RULE}"]),
    ],
)
def test_peers(peers: str, expected: list[str]) -> None:
    files = sample_files(
        {
            "dns": f"image: a\nnetwork: [default]\npeers: {peers}\n",
            "web": "image: a\nnetwork: [lan, default]\n",
            "far": "image: a\nnetwork: lan\n",
        },
        networks={"default": NETWORK, "lan": LAN},
    )
    assert findings_if_any(files) == [f"{DIRECTORY}/{finding}" for finding in expected]


def test_a_port_that_two_publish_is_named_with_both_places() -> None:
    files = sample_files(
        {
            "dns": "image: a\npublish:\n- 53/udp\n- 8000-8010:80-90\n",
            "web": "image: a\npublish: [80, '192.0.2.1:8005:80']\n",
        },
        networks={"default": LAN},
    )
    first = f"{DIRECTORY}/appliances/dns.yaml:3"
    assert findings(files) == [
        f"appliances/web.yaml:2:10: publish: 192.0.2.1:8005:80/tcp is published by “dns” too ({first})",
    ]


@pytest.mark.parametrize(
    ("network", "reached"),
    [
        ("nat", True),
        ("routed", True),
        ("inner", False),
        ("lan", False),
        ("[inner, lan]", False),
        ("[inner, nat]", True),
        ("[]", False),
    ],
)
def test_only_what_the_host_routes_to_can_be_published(network: str, reached: bool) -> None:
    networks = {
        "nat": LAN,
        "routed": "kind: routed\nsubnets: [10.2.0.0/24]\n",
        "inner": NETWORK,
        "lan": POOLED,
    }
    files = sample_files({"web": f"image: a\npublish: 80\nnetwork: {network}\n"}, networks=networks)
    wrong = "only what is in a nat or routed network can be published on the host"
    expected = [] if reached else [f"{DIRECTORY}/appliances/web.yaml:2:10: publish: {wrong}"]
    assert findings_if_any(files) == expected


# --- everything


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


ONE_LAN = "kind: bridged\nsubnets: 192.0.2.0/24\npool: 192.0.2.0/24\n"


def test_a_bridge_of_the_agent_s_own_is_no_network_of_others() -> None:
    networks = {"lan": "subnets: [10.0.0.0/24]", "far": f"{ONE_LAN}uplink: eth1\n"}
    for bridge in ("br-lan", "br.eth1"):
        files = sample_files({}, networks={**networks, "near": f"{ONE_LAN}bridge: {bridge}\n"})
        expected = f"networks/near.yaml:4:9: bridge: {bridge} is a bridge of the agent's own"
        assert expected in findings(files)


@pytest.mark.parametrize(
    ("setting", "what"), [("egress: []", "egress: it"), ("limits: {connections: 5}", "limits: connections")]
)
@pytest.mark.parametrize("network", ["lan", "default", "[lan, default]"])
def test_what_the_host_does_not_route_it_does_not_limit(setting: str, what: str, network: str) -> None:
    networks = {
        "lan": f"{ONE_LAN}bridge: br0\n",
        "default": NETWORK,
        "out": "kind: nat\nsubnets: [10.90.0.0/24]\n",
    }
    text = f"image: a\n{setting}\nnetwork: "
    wrong = f"{what}: only for what is in a nat or routed network"
    assert findings(sample_files({"dns": f"{text}{network}"}, networks=networks)) == [
        f"appliances/dns.yaml:2:9: {wrong}"
    ]
    routed = f"{text}[{network.strip('[]')}, out]"
    assert "dns" in read_tree(sample_files({"dns": routed}, networks=networks)).appliances
