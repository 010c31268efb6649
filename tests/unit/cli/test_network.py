"""The verbs about networks, on an agent in memory."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli import client_network as client
from agent.cli import network
from agent.cli.main import main
from agent.model.diagnosis import HopReport
from agent.model.errors import ApplianceError, Problem
from agent.model.network_status import Lease, LeasedAddress, NetworkStatus, Published, TapCounters

DEFAULT = NetworkStatus(
    name="default",
    kind="nat",
    bridge="br-default",
    uplink="",
    vlan=0,
    subnets=("10.88.0.0/24", "fd00:88::/64"),
    automatic=True,
    host_addresses=("10.88.0.1", "fd00:88::1"),
    gateways=("10.88.0.1", "fd00:88::1"),
    mtu=1500,
    nameservers=(),
    search=("example.test",),
    peers=False,
    limited=False,
    egress=(),
    appliances=("dns", "web"),
)
LAN = replace(
    DEFAULT,
    name="lan",
    kind="bridged",
    bridge="br.eth1",
    uplink="eth1",
    vlan=20,
    subnets=("192.0.2.0/24",),
    automatic=False,
    host_addresses=(),
    gateways=("192.0.2.254",),
    appliances=(),
)
DNS = Lease(
    network="default",
    appliance="dns",
    tap="ap-dns",
    mac="02:00:00:00:00:01",
    vlan=0,
    default_route=True,
    addresses=(LeasedAddress("10.88.0.53", fixed=True), LeasedAddress("fd00:88::2", fixed=False)),
)
WEB = replace(
    DNS,
    appliance="web",
    tap="ap-web",
    mac="02:00:00:00:00:02",
    default_route=False,
    addresses=(LeasedAddress("10.88.0.2", fixed=False),),
)
PORTS = [
    Published("dns", "53/udp", "default", ("10.88.0.53:53", "[fd00:88::2]:53"), ""),
    Published("dns", "53/tcp", "default", ("10.88.0.53:53",), "nginx.service uses it on this host"),
]
COUNTERS = [TapCounters("default", "dns", "ap-dns", 12, 3072, 1, 60, 0, 0)]
SOUND = HopReport("host", "default", "ok", "other routes to 10.88.0.0/24")
BROKEN = HopReport("bridge", "default", "failed", "br-default", "it is down", "`appliancectl apply`")
OPEN = HopReport("guest", "default", "unknown", "echo from 10.88.0.2", "it was not asked")


@pytest.fixture(autouse=True)
def _agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "networks", lambda: [DEFAULT, LAN])
    leases = [DNS, WEB]
    monkeypatch.setattr(
        client, "leases", lambda name="": [one for one in leases if name in {"", one.network}]
    )
    monkeypatch.setattr(client, "published", lambda: PORTS)
    monkeypatch.setattr(client, "counters", lambda: COUNTERS)


# --- list, leases


@pytest.mark.parametrize("argv", [["network"], ["network", "list"]])
def test_list(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert (
        capsys.readouterr().out
        == """\
NAME     KIND     BRIDGE      SUBNETS                                 APPLIANCES
default  nat      br-default  10.88.0.0/24, fd00:88::/64 (automatic)  2
lan      bridged  br.eth1     192.0.2.0/24                            0

2 networks.
"""
    )


def test_leases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "leases"]) == 0
    assert (
        capsys.readouterr().out
        == """\
NETWORK  APPLIANCE  ADDRESS     ORIGIN     MAC
default  dns        10.88.0.53  fixed      02:00:00:00:00:01
default  dns        fd00:88::2  allocated  02:00:00:00:00:01
default  web        10.88.0.2   allocated  02:00:00:00:00:02

3 leases.
"""
    )
    assert main(["network", "leases", "lan"]) == 0
    assert capsys.readouterr().out.endswith("\n0 leases.\n")


@pytest.mark.parametrize(
    ("verb", "count", "member"),
    [("list", 2, ("subnets", ["10.88.0.0/24", "fd00:88::/64"])), ("leases", 2, ("tap", "ap-dns"))],
)
def test_json(verb: str, count: int, member: tuple[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", verb, "--json=short"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found), found[0][member[0]]) == (count, member[1])


# --- show


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "show", "default"]) == 0
    assert (
        capsys.readouterr().out
        == """\
      Network: default
         Kind: nat
       Bridge: br-default
      Subnets: 10.88.0.0/24, fd00:88::/64 (automatic)
         Host: 10.88.0.1, fd00:88::1
      Gateway: 10.88.0.1, fd00:88::1
          MTU: 1500
  Nameservers: those of the host
       Search: example.test
        Peers: those that name each other
       Egress: no limit
   Appliances: 2

dns
          Tap: ap-dns
          MAC: 02:00:00:00:00:01
    Addresses: 10.88.0.53 (fixed), fd00:88::2 (allocated)
Default route: yes
     Received: 12 packets, 3.0K
         Sent: 1 packet, 60B
      Refused: 0 packets, 0B
    Published: 53/udp to 10.88.0.53:53, [fd00:88::2]:53
               53/tcp is not published: nginx.service uses it on this host

web
          Tap: ap-web
          MAC: 02:00:00:00:00:02
    Addresses: 10.88.0.2 (allocated)
Default route: no
     Received: there is no such interface
"""
    )


def test_show_a_network_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "show", "lan"]) == 0
    text = capsys.readouterr().out
    assert "       Bridge: br.eth1\n       Uplink: eth1, VLAN 20\n" in text
    assert "         Host: -\n      Gateway: 192.0.2.254\n" in text


@pytest.mark.parametrize(
    ("egress", "text"), [((), "Egress: nowhere"), (("*:53/udp", "192.0.2.0/24"), "Egress: *:53/udp, 192.")]
)
def test_show_a_limited_network(
    egress: tuple[str, ...],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    limited = replace(DEFAULT, limited=True, egress=egress, peers=True)
    monkeypatch.setattr(client, "networks", lambda: [limited])
    assert main(["network", "show", "default"]) == 0
    found = capsys.readouterr().out
    assert text in found
    assert "Peers: all of its appliances" in found


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "show", "default", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["automatic"]) == ("default", True)
    dns, web = found["appliances"]
    assert dns["addresses"][0] == {"address": "10.88.0.53", "fixed": True}
    assert (dns["counters"]["received_bytes"], web["counters"]) == (3072, None)
    assert [port["reason"] for port in dns["published"]] == ["", "nginx.service uses it on this host"]
    assert web["published"] == []


def test_show_without_counters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> list[TapCounters]:
        raise ApplianceError("nft failed.", problem=Problem.FAILED)

    monkeypatch.setattr(client, "counters", fail)
    assert main(["network", "show", "default"]) == 0
    assert "     Received: unknown: nft failed.\n" in capsys.readouterr().out


def test_show_without_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[TapCounters]:
        raise ApplianceError("The agent does not answer.", problem=Problem.UNAVAILABLE)

    monkeypatch.setattr(client, "counters", fail)
    assert main(["network", "show", "default"]) == Problem.UNAVAILABLE.exit_status


def test_show_a_network_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "show", "none"]) == Problem.NOT_FOUND.exit_status
    assert "There is no network “none”." in capsys.readouterr().err


# --- diagnose


def diagnosed(monkeypatch: pytest.MonkeyPatch, *hops: HopReport) -> None:
    monkeypatch.setattr(client, "diagnose", lambda name: list(hops) if name == "dns" else [])


def test_a_broken_hop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    diagnosed(monkeypatch, SOUND, BROKEN, OPEN)
    assert main(["network", "diagnose", "dns"]) == 1
    assert (
        capsys.readouterr().out
        == """\
HOP     NETWORK  VERDICT  LOOKED AT
host    default  ok       other routes to 10.88.0.0/24
bridge  default  failed   br-default
guest   default  unknown  echo from 10.88.0.2

bridge: it is down.
    `appliancectl apply`

guest: it was not asked.
"""
    )


def test_what_is_unknown_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosed(monkeypatch, SOUND, OPEN)
    assert main(["network", "diagnose", "dns"]) == 0


def test_remedies_on_several_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diagnosed(monkeypatch, BROKEN, replace(BROKEN, network="back"))
    assert main(["network", "diagnose", "dns"]) == 1
    assert capsys.readouterr().out.endswith(
        """
bridge of default: it is down.
    `appliancectl apply`

bridge of back: it is down.
    `appliancectl apply`
"""
    )


def test_a_diagnosis_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    diagnosed(monkeypatch, SOUND, BROKEN)
    assert main(["network", "diagnose", "dns", "--json=short"]) == 1
    [_, broken] = json.loads(capsys.readouterr().out)
    assert (broken["hop"], broken["verdict"], broken["looked_at"]) == ("bridge", "failed", "br-default")
    assert (broken["reason"], broken["remedy"]) == ("it is down", "`appliancectl apply`")


def test_an_appliance_on_no_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diagnosed(monkeypatch)
    assert main(["network", "diagnose", "alone"]) == 0
    assert capsys.readouterr().out == "alone is on no network.\n"


# --- picture


def test_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "picture"]) == 0
    assert (
        capsys.readouterr().out
        == """\
this host
├── default  nat, br-default, 10.88.0.0/24, fd00:88::/64
│   ├── dns  10.88.0.53, fd00:88::2
│   │   ├── 53/udp → 10.88.0.53:53, [fd00:88::2]:53
│   │   └── 53/tcp is not published: nginx.service uses it on this host
│   └── web  10.88.0.2
└── lan  bridged, by eth1, VLAN 20, 192.0.2.0/24
"""
    )


@pytest.mark.parametrize(("encoding", "ascii_only"), [("ascii", True), ("latin-1", True), ("utf-8", False)])
def test_a_picture_is_drawn_with_what_the_output_has(
    encoding: str, ascii_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = replace(PORTS[1], reason="“x.service” uses it")
    monkeypatch.setattr(client, "published", lambda: [odd])
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["network", "picture"]) == 0
    text = output.buffer.getvalue().decode(encoding)
    assert ("|-- default" in text) == ascii_only
    assert ("?x.service?" in text) == ascii_only


def test_source_for_graphviz(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["network", "picture", "--dot"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"digraph appliances {\n")


@pytest.fixture
def graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of dot(1): shows its arguments and what it reads."""
    path = tmp_path / "dot"
    path.write_text('#!/bin/sh\necho "<svg $*>"\nexec cat\n')
    path.chmod(0o755)
    monkeypatch.setattr(network, "_DOT", (str(path), "-Tsvg"))
    return path


@pytest.mark.usefixtures("graphviz")
def test_an_image(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["network", "picture", "--svg"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"<svg -Tsvg>\ndigraph appliances {\n")


def test_an_image_without_graphviz(graphviz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphviz.unlink()
    assert main(["network", "picture", "--svg"]) == Problem.NOT_SUPPORTED.exit_status
    assert "`apt install graphviz`" in capsys.readouterr().err


def test_an_image_that_fails(graphviz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphviz.write_text("#!/bin/sh\ncat >/dev/null\necho 'syntax error' >&2\nexit 1\n")
    assert main(["network", "picture", "--svg"]) == Problem.FAILED.exit_status
    assert "dot failed with exit status 1: syntax error" in capsys.readouterr().err


def test_a_picture_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "picture", "--json=short"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(found[key]) for key in ("networks", "leases", "published")] == [2, 2, 2]


def test_two_forms_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["network", "picture", "--dot", "--svg"])
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
