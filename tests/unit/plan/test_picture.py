"""Pictures of networks."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from agent.config.traffic import parse_publication
from agent.model.network_status import Published
from agent.plan.network_status import leases_of, networks_of, published_of
from agent.plan.picture import LINE_CHARACTERS, Scene, as_dot, as_tree
from tests.unit.plan.test_network_status import planned

NETWORKS = {
    "default": "subnets: [10.88.0.0/24, 'fd00:88::/64']\n",
    "back": "kind: isolated\nsubnets: [10.89.0.0/24]\n",
    "lan": "kind: bridged\nuplink: eth1\nvlan: 20\nsubnets: [192.0.2.0/24]\npool: 192.0.2.64/26\n",
    "empty": "kind: routed\nsubnets: [198.51.100.0/24]\n",
}
APPLIANCES: dict[str, dict[str, Any]] = {
    "dns": {"publish": ["53/udp", "53/tcp"]},
    "web": {"network": ["default", "back", "lan"], "publish": "8080-8081:80-81"},
}


@pytest.fixture(scope="module")
def scene() -> Scene:
    plan = planned(NETWORKS, APPLIANCES)
    taken = parse_publication("53/tcp")
    assert taken is not None
    withheld = {("dns", taken): "nginx.service has it"}
    return Scene(networks_of(plan), leases_of(plan), published_of(plan, withheld))


TREE = """\
this host
├── back  isolated, br-back, 10.89.0.0/24
│   └── web  10.89.0.2
├── default  nat, br-default, 10.88.0.0/24, fd00:88::/64
│   ├── dns  10.88.0.2, fd00:88::2
│   │   ├── 53/udp → 10.88.0.2:53, [fd00:88::2]:53
│   │   └── 53/tcp is not published: nginx.service has it
│   └── web  10.88.0.3, fd00:88::3
│       └── 8080-8081:80-81/tcp → 10.88.0.3:80-81, [fd00:88::3]:80-81
├── empty  routed, br-empty, 198.51.100.0/24
└── lan  bridged, by eth1, VLAN 20, 192.0.2.0/24
    └── web  192.0.2.64
"""


def test_a_tree(scene: Scene) -> None:
    assert as_tree(scene) == TREE


def test_a_tree_in_plain_ascii_has_the_same_shape(scene: Scene) -> None:
    text = as_tree(scene, ascii_only=True)
    assert text.isascii()
    assert set(TREE) - set(LINE_CHARACTERS) <= set(text)
    plain = TREE.translate(str.maketrans("├└│─", "|`|-")).replace("→", "->")
    assert text == plain


def test_a_host_without_networks() -> None:
    assert as_tree(Scene((), (), ())) == "this host\n"
    assert as_dot(Scene((), (), ())).startswith("digraph appliances {\n")


DOT = """\
digraph appliances {
    rankdir=LR;
    node [fontname="sans-serif", fontsize=11, shape=box];
    edge [fontname="sans-serif", fontsize=9];
    "outside" [label="outside", shape=plaintext];
    "network back" [label="back\\nisolated, br-back\\n10.89.0.0/24", style=rounded];
    "network default" [label="default\\nnat, br-default\\n10.88.0.0/24\\nfd00:88::/64", style=rounded];
    "outside" -> "network default" [dir=back];
    "network empty" [label="empty\\nrouted, br-empty\\n198.51.100.0/24", style=rounded];
    "outside" -> "network empty" [dir=both];
    "network lan" [label="lan\\nbridged, by eth1\\nVLAN 20\\n192.0.2.0/24", style=rounded];
    "outside" -> "network lan" [dir=both];
    "appliance dns" [label="dns"];
    "appliance web" [label="web"];
    "network back" -> "appliance web" [label="10.89.0.2", dir=none];
    "network default" -> "appliance dns" [label="10.88.0.2\\nfd00:88::2", dir=none];
    "network default" -> "appliance web" [label="10.88.0.3\\nfd00:88::3", dir=none];
    "network lan" -> "appliance web" [label="192.0.2.64", dir=none];
    "outside" -> "appliance dns" [label="53/udp"];
    "outside" -> "appliance dns" [label="53/tcp\\nnot published: nginx.service has it", style=dashed];
    "outside" -> "appliance web" [label="8080-8081:80-81/tcp"];
}
"""


def test_source_for_graphviz(scene: Scene) -> None:
    assert as_dot(scene) == DOT


@pytest.mark.parametrize(
    "text",
    [
        'x"]; evil -> b [label="',
        "back\\",
        '\\"',
        "\\N \\G \\l",
        "two\nlines",
        "tab\there\x00\x1b[1m",
        "<b>bold</b>",
        "{a|b}",
        "“typographic” → ünïcode",
    ],
)
def test_nothing_in_a_label_ends_it(scene: Scene, text: str) -> None:
    """What is between quotes is read as graphviz does: a backslash belongs to the next character."""
    strange = Published("dns", text, "default", (), text)
    named = replace(scene.networks[0], uplink=text)
    source = as_dot(Scene([named], (), [strange]))
    outside: list[str] = []
    strings: list[str] = []
    for part in re.split(r'("(?:[^"\\]|\\.)*")', source):
        (strings if part.startswith('"') else outside).append(part)
    assert '"' not in "".join(outside)
    assert {"evil", "label=<", "bold"}.isdisjoint(re.findall(r"\w+", "".join(outside)))
    assert all(line.isprintable() for line in source.splitlines())
    shown = "".join(one if one.isprintable() or one == "\n" else "?" for one in text)
    assert any(_unescaped(part) == f"{shown}\nnot published: {shown}" for part in strings)


def _unescaped(part: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], part[1:-1])
