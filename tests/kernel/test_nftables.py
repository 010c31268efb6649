"""The rules in a real kernel: what a change leaves is what a load would, and what others do is noticed."""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.host import nftables
from agent.host.fitness import Verdict, _firewall
from agent.host.nftables import Firewall, FirewallMonitor
from agent.model.change import Effect
from agent.model.errors import HostError
from agent.plan.firewall import NAME, TABLES
from agent.plan.ruleset import Chain, Ruleset, Table
from agent.util.run import run as original_run
from tests.kernel.rack import NETWORKS, host_plan, ruleset_of

MANY = {
    **NETWORKS,
    "routed": "kind: routed\nsubnets: ['2001:db8:1::/64']\negress: ['[2001:db8::/32]']\n",
    "inner": "kind: isolated\nsubnets: [10.90.0.0/24]\n",
    "all": "subnets: [10.91.0.0/24]\npeers: all\n",
    "lan": "kind: bridged\nsubnets: [192.0.2.0/24, 'fd00:92::/64']\nbridge: br0\n"
    "pool: [192.0.2.128/25, 'fd00:92::/64']\n",
}
FIXED = [{"network": {"name": "default", "address": f"10.88.0.{number}"}} for number in (5, 6)]
PLANS: dict[str, tuple[Mapping[str, Mapping[str, Any]], Mapping[str, str]]] = {
    "nothing": ({}, {}),
    "empty": ({}, NETWORKS),
    "one": ({"web": {}}, NETWORKS),
    "three": ({"db": {"peers": "web"}, "dns": {}, "web": {"publish": ["8080:80", "53/udp"]}}, NETWORKS),
    "two": ({"dns": {"peers": "web"}, "web": {"publish": ["8080:81", "[::]:53/udp"]}}, NETWORKS),
    "fixed": (dict(zip(("dns", "web"), FIXED, strict=True)), NETWORKS),
    "swapped": (dict(zip(("web", "dns"), FIXED, strict=True)), NETWORKS),
    "many": (
        {
            "dhcp": {
                "network": ["inner", "lan"],
                "grants": ["dhcp-server", "host:53/udp", "host:8000-8010"],
            },
            "dns": {"network": ["default", "all"], "egress": ["*:53/udp", "192.0.2.0/24:443"]},
            "mail": {"network": "default", "egress": [], "grants": "host", "limits": {"connections": 50}},
            "web": {
                "network": ["routed", "all"],
                "publish": ["8000-8010:9000-9010", "443"],
                "limits": {"bandwidth": "10M", "connections": 7},
            },
        },
        MANY,
    ),
}


def rules(name: str) -> Ruleset:
    return ruleset_of(host_plan(*PLANS[name]))


def nft(*arguments: str, program: str | Path = "/usr/sbin/nft", text: str = "") -> str:
    command = [program, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def listing() -> dict[str, list[str]]:
    """Everything there is, as nft(8) shows it, by table. What a table holds is sorted: nothing depends on
    which chain was made first."""
    tables = re.split(r"^(table .*) {\n", nft("--stateless", "list", "ruleset"), flags=re.MULTILINE)[1:]
    return {
        name: sorted(part.strip() for part in content.removesuffix("}\n").split("\n\n"))
        for name, content in zip(tables[::2], tables[1::2], strict=True)
    }


def apply(firewall: Firewall, wanted: Ruleset) -> list[str]:
    changes = firewall.plan(wanted)
    for change in changes:
        change.apply()
    return [str(change) for change in changes]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The commands of every nft(8) that a firewall runs."""
    found: list[list[Any]] = []

    def run(argv: Any, *, stdin: bytes, on_start: Callable[[int], object]) -> bytes:
        found.append(json.loads(stdin)["nftables"])
        return original_run(argv, stdin=stdin, on_start=on_start)

    monkeypatch.setattr(nftables, "run", run)
    return found


# --- loading and changing


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(PLANS, 2)))
def test_a_change_leaves_what_a_load_would(runs: list[list[Any]], old: str, new: str) -> None:
    changed, loaded = Firewall(), Firewall()
    apply(changed, rules(old))
    apply(changed, rules(new))
    found = listing()
    apply(loaded, rules(new))
    assert found == listing()
    assert set(found) == {f"table {family} {name}" for family, name in TABLES}
    # Not by loading everything after that did not work.
    [_, change, _] = runs
    assert not [command for command in change if "table" in next(iter(command.values()))]


def test_a_change_touches_only_what_differs(runs: list[list[Any]]) -> None:
    """What was counted, and the tokens of limits, stay with what stays."""
    firewall = Firewall()
    apply(firewall, rules("one"))
    assert apply(firewall, ruleset_of(host_plan({"web": {"publish": "80"}}, NETWORKS))) == [
        "change the firewall: tcp-80"
    ]
    assert {chain for command in runs[1] for chain in re.findall(r"'chain': '([^']*)'", str(command))} == {
        "tcp-80"
    }


def test_what_is_loaded_already_is_not_loaded_again(runs: list[list[Any]]) -> None:
    firewall = Firewall()
    for name in PLANS:
        apply(firewall, rules(name))
        assert firewall.plan(rules(name)) == []
    assert len(runs) == len(PLANS)


def test_rules_of_before_are_replaced_whatever_they_are() -> None:
    """Those of an older agent, for example."""
    apply(Firewall(), rules("one"))
    expected = listing()
    nft(
        "-f",
        "-",
        text="flush ruleset; table inet appliance { set bridges { typeof ip daddr; }; chain x { drop; }; }",
    )
    assert apply(Firewall(), rules("one")) == ["load the firewall"]
    assert listing() == expected


THEIRS = """\
table inet filter { chain forward { type filter hook forward priority 0; policy drop; tcp dport 22 drop; }; }
table ip nat { chain postrouting { type nat hook postrouting priority 100; oifname "eth0" masquerade; }; }
table bridge filter { set ports { type ifname; elements = { "eth0" }; }; }
table ip appliance { chain input { type filter hook input priority 0; counter; }; }
"""


def test_tables_of_others_are_left_alone() -> None:
    nft("-f", "-", text=THEIRS)
    theirs = handles()
    firewall = Firewall()
    for name in PLANS:
        apply(firewall, rules(name))
        assert handles() == theirs
    firewall.remove()
    assert handles() == theirs
    assert set(listing()) == {
        "table inet filter",
        "table ip nat",
        "table bridge filter",
        "table ip appliance",
    }


def handles() -> list[str]:
    """The tables of others, with the handles by which the kernel knows what is in them."""
    tables = re.split(r"^(?=table )", nft("--handle", "list", "ruleset"), flags=re.MULTILINE)
    ours = tuple(f"table {family} {name} " for family, name in TABLES)
    return [table for table in tables if not table.startswith(ours)]


def test_rules_that_the_kernel_refuses_change_nothing() -> None:
    firewall = Firewall()
    apply(firewall, rules("one"))
    before = listing()
    wrong = [*rules("two"), Table("inet", NAME, {"x": Chain([[{"jump": {"target": "nowhere"}}]])})]
    [change] = firewall.plan(wrong)
    assert Effect.NEEDED in change.effect
    with pytest.raises(HostError, match="nft failed with exit status 1"):
        change.apply()
    assert listing() == before
    assert apply(firewall, rules("two")) == ["load the firewall"]


def test_nothing_is_left_of_what_is_removed() -> None:
    firewall = Firewall()
    firewall.remove()
    apply(firewall, rules("many"))
    firewall.remove()
    assert listing() == {}
    firewall.remove()
    assert apply(firewall, rules("one")) == ["load the firewall"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("empty", "one", "change the firewall: ap-web"),
        ("fixed", "swapped", "change the firewall: ap-dns, ap-web"),
        ("one", "three", "change the firewall: ap-db, ap-dns, ap-web, tcp-8080 and 1 more"),
        ("nothing", "empty", "change the firewall: postrouting"),
        ("one", "many", "change the firewall: ap-dhcp, ap-dhcp.1, ap-dns, ap-dns.1 and 12 more"),
    ],
)
def test_what_is_changed_is_named(old: str, new: str, text: str) -> None:
    firewall = Firewall()
    apply(firewall, rules(old))
    assert list(map(str, firewall.plan(rules(new)))) == [text]


def test_doctor_only_tries_it() -> None:
    before = listing()
    assert _firewall().verdict is Verdict.OK
    assert listing() == before


# --- what others do


@pytest.fixture
def firewall() -> Firewall:
    firewall = Firewall()
    apply(firewall, rules("three"))
    return firewall


@pytest.fixture
def monitor(firewall: Firewall) -> Iterator[FirewallMonitor]:
    found = FirewallMonitor(firewall.is_own)
    yield found
    found.close()


@pytest.fixture
def culprit(tmp_path: Path) -> Path:
    """nft(8) as a process of another name."""
    path = tmp_path / "culprit"
    path.symlink_to("/usr/sbin/nft")
    return path


DEEDS = {
    "everything": "flush ruleset",
    "a table": "delete table bridge appliance",
    "a chain": "flush chain inet appliance guest-in",
    "an element": 'delete element bridge appliance ports { "ap-web" }',
    "a rule of its own": "insert rule inet appliance forward accept",
    "a set of its own": "add set inet appliance mine { type inet_service; }",
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_somebody_else_s_change_is_noticed_with_the_name_of_who_made_it(
    monitor: FirewallMonitor, culprit: Path, deed: str
) -> None:
    nft(*deed.split(), program=culprit)
    assert monitor.read() == "culprit"
    assert monitor.read() is None


def test_the_removal_of_one_rule_is(firewall: Firewall, monitor: FirewallMonitor, culprit: Path) -> None:
    expected = listing()
    chain = nft("--handle", "list", "chain", "inet", "appliance", "guest-in")
    [handle] = re.findall(r"oifname @closed drop # handle (\d+)", chain)
    nft("delete", "rule", "inet", "appliance", "guest-in", "handle", handle, program=culprit)
    process = monitor.read()
    assert process == "culprit"
    firewall.lose(process)
    assert apply(firewall, rules("three")) == ["load the firewall (culprit has changed it)"]
    assert listing() == expected
    assert monitor.read() is None
    assert firewall.plan(rules("three")) == []


def test_our_own_changes_are_no_news(firewall: Firewall, monitor: FirewallMonitor) -> None:
    for name in PLANS:
        apply(firewall, rules(name))
        assert monitor.read() is None
    firewall.refused()
    firewall.remove()
    assert monitor.read() is None


def test_nor_are_those_of_tables_of_others(monitor: FirewallMonitor, culprit: Path) -> None:
    nft("-f", "-", program=culprit, text=THEIRS.replace("table ip appliance", "table ip another"))
    nft("flush", "chain", "inet", "filter", "forward", program=culprit)
    nft("delete", "table", "inet", "filter", program=culprit)
    assert monitor.read() is None


def test_what_others_do_amid_our_own_changes_is_not_missed(
    firewall: Firewall, monitor: FirewallMonitor, culprit: Path
) -> None:
    apply(firewall, rules("one"))
    nft("flush", "chain", "inet", "appliance", "forward", program=culprit)
    apply(firewall, rules("many"))
    assert monitor.read() == "culprit"


def test_another_agent_is_somebody_else(monitor: FirewallMonitor) -> None:
    apply(Firewall(), rules("one"))
    assert monitor.read() == "nft"


def test_more_news_than_there_is_room_for_count_as_a_change(monitor: FirewallMonitor, culprit: Path) -> None:
    monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    table = "table inet filter { set ports { type inet_service; }; };"
    many = ", ".join(map(str, range(1, 5000)))
    nft("-f", "-", program=culprit, text=f"{table} add element inet filter ports {{ {many} }};")
    assert monitor.read() == "somebody"
    assert monitor.read() is None
    nft("flush", "ruleset", program=culprit)
    assert monitor.read() in {"culprit", "somebody"}


# --- rules that are not what they were taken for


@pytest.mark.parametrize(
    "deed", ["flush ruleset", "delete table inet appliance", "flush set bridge appliance ports"]
)
def test_what_was_lost_without_a_word_is_loaded_with_the_next_change(firewall: Firewall, deed: str) -> None:
    """The news of it may still be under way."""
    nft(*deed.split())
    apply(firewall, rules("one"))
    found = listing()
    apply(Firewall(), rules("one"))
    assert found == listing()


def test_what_somebody_changes_while_we_do_is_looked_after_next(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any, **options: Any) -> bytes:
        firewall.lose("culprit")
        return original_run(*arguments, **options)

    monkeypatch.setattr(nftables, "run", run)
    apply(firewall, rules("one"))
    monkeypatch.undo()
    assert apply(firewall, rules("one")) == ["load the firewall (culprit has changed it)"]
    assert apply(firewall, rules("one")) == []
