"""An nftables ruleset as data, and the commands that load it or turn one into another. Pure.

Statements and expressions are those of libnftables-json(5); each of the small functions here says what it
stands for in the syntax of nft(8). Everything is loaded in one transaction: either all of it holds, or
nothing has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Any
Rule = Sequence[Json]
"""Expressions and statements, in order."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is called."""

    type: str
    hook: str
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules; with a hook, the kernel calls it."""

    rules: Sequence[Rule] = ()
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """Elements of one type, or of several in a row. Those of a verdict map are pairs of a key and a chain to
    jump to."""

    type: str | tuple[str, ...]
    elements: Collection[Json] = ()
    verdicts: bool = False
    intervals: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of ours, with everything in it by name."""

    family: str
    name: str
    chains: Mapping[str, Chain]
    sets: Mapping[str, Set] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()


Ruleset = Sequence[Table]

# --- expressions and statements

ACCEPT: Json = {"accept": None}
DROP: Json = {"drop": None}
RETURN: Json = {"return": None}
MASQUERADE: Json = {"masquerade": None}


def meta(key: str) -> Json:
    """`iifname`, `oifname`, `l4proto`, `nfproto`."""
    return {"meta": {"key": key}}


def payload(protocol: str, name: str) -> Json:
    """`ip saddr`."""
    return {"payload": {"protocol": protocol, "field": name}}


def match(left: Json, right: Json, *, negated: bool = False) -> Json:
    """`LEFT RIGHT`, `LEFT != RIGHT`; a collection is a set."""
    several = isinstance(right, (list, tuple, set, frozenset))
    value = right
    if several:
        items = sorted(right, key=str)
        value = items[0] if len(items) == 1 else {"set": items}
    return {"match": {"op": "!=" if negated else "==", "left": left, "right": value}}


def state(*states: str) -> Json:
    """`ct state STATES`."""
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": list(states)}}


def is_published() -> Json:
    """`ct status dnat`: part of a connection to a published port."""
    return {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}


def is_local() -> Json:
    """`fib daddr type local`: to an address of this host."""
    return match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")


def concat(*parts: Json) -> Json:
    """`PART . PART`."""
    return {"concat": list(parts)}


def prefix(network: object) -> Json:
    """A subnet."""
    address, _, length = str(network).partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def span(first: int, last: int) -> Json:
    """`FIRST-LAST`, or one number."""
    return first if first == last else {"range": [first, last]}


def jump(chain: str) -> Json:
    """`jump CHAIN`."""
    return {"jump": {"target": chain}}


def dispatch(key: Json, name: str) -> Json:
    """`KEY vmap @NAME`."""
    return {"vmap": {"key": key, "data": f"@{name}"}}


def over(rate: int, unit: str = "packets", *, burst: int) -> Json:
    """`limit rate over RATE/second burst BURST`; with a unit of bytes, of those."""
    limit: dict[str, Json] = {"rate": rate, "burst": burst, "per": "second", "inv": True}
    if unit != "packets":
        limit.update(rate_unit=unit, burst_unit=unit)
    return {"limit": limit}


def count(name: str) -> Json:
    """`counter name NAME`."""
    return {"counter": name}


IIF, OIF = meta("iifname"), meta("oifname")
LOOPBACK = prefix("127.0.0.0/8")

# --- commands


def load(ruleset: Ruleset) -> list[Json]:
    """Commands that replace our tables, whatever is in them, by these."""
    return [command for table in ruleset for command in _load(table)]


def remove(tables: Iterable[tuple[str, str]]) -> list[Json]:
    """Commands that leave none of these tables, by family and name, whether they exist or not."""
    commands = []
    for family, name in tables:
        table = {"table": {"family": family, "name": name}}
        commands += [{"add": table}, {"delete": table}]
    return commands


def change(old: Ruleset, new: Ruleset) -> list[Json] | None:
    """Commands that turn one ruleset into another, touching only what differs; None where that takes a
    `load`."""
    before = {(table.family, table.name): table for table in old}
    commands: list[Json] = []
    for table in new:
        had = before.pop((table.family, table.name), None)
        if had is None or not _is_same_frame(had, table):
            return None
        commands += _change(had, table)
    return None if before else commands


def changed_parts(old: Ruleset, new: Ruleset) -> list[str]:
    """Names of the chains that differ, for people."""
    before = {(table.family, table.name): table.chains for table in old}
    found: dict[str, None] = {}
    for table in new:
        had = before.get((table.family, table.name), {})
        for name in sorted(had.keys() | table.chains.keys()):
            if had.get(name) != table.chains.get(name):
                found[name] = None
    return list(found)


def _load(table: Table) -> Iterator[Json]:
    yield from remove([(table.family, table.name)])
    yield {"add": {"table": {"family": table.family, "name": table.name}}}
    yield from (_counter("add", table, name) for name in sorted(table.counters))
    yield from (_chain("add", table, name) for name in table.chains)
    for name, entry in table.sets.items():
        yield _set("add", table, name, entry)
        yield from _elements("add", table, name, entry.elements, verdicts=entry.verdicts)
    for name, chain in table.chains.items():
        yield from _rules(table, name, chain)


def _is_same_frame(old: Table, new: Table) -> bool:
    """Whether base chains and types of sets are the same: what cannot be changed in place."""
    sets = old.sets.keys() & new.sets.keys()
    chains = old.chains.keys() & new.chains.keys()
    return (
        old.sets.keys() == new.sets.keys()
        and all(_frame(old.sets[name]) == _frame(new.sets[name]) for name in sets)
        and all(old.chains[name].hook == new.chains[name].hook for name in chains)
        and all(
            table.chains[name].hook is None
            for table in (old, new)
            for name in old.chains.keys() ^ new.chains.keys()
            if name in table.chains
        )
    )


def _frame(entry: Set) -> tuple[Json, ...]:
    return entry.type, entry.verdicts, entry.intervals


def _change(old: Table, new: Table) -> Iterator[Json]:
    """What refers to something goes before that goes, and comes after it has come."""
    changed = [name for name, chain in new.chains.items() if old.chains.get(name) != chain]
    gone = [name for name in old.chains if name not in new.chains]
    yield from (_counter("add", new, name) for name in sorted(new.counters - old.counters))
    yield from (_chain("add", new, name) for name in changed if name not in old.chains)
    for name, entry in old.sets.items():
        yield from _elements("delete", new, name, _without(entry, new.sets[name]), verdicts=entry.verdicts)
    yield from (_chain("flush", new, name) for name in (*changed, *gone) if name in old.chains)
    for name, entry in new.sets.items():
        yield from _elements("add", new, name, _without(entry, old.sets[name]), verdicts=entry.verdicts)
    for name in changed:
        yield from _rules(new, name, new.chains[name])
    yield from (_chain("delete", new, name) for name in gone)
    yield from (_counter("delete", new, name) for name in sorted(old.counters - new.counters))


def _without(entry: Set, other: Set) -> list[Json]:
    """The elements of one set that are not in another."""
    known = {repr(element) for element in other.elements}
    return [element for element in entry.elements if repr(element) not in known]


def _counter(verb: str, table: Table, name: str) -> Json:
    return {verb: {"counter": {"family": table.family, "table": table.name, "name": name}}}


def _chain(verb: str, table: Table, name: str) -> Json:
    chain: dict[str, Json] = {"family": table.family, "table": table.name, "name": name}
    hook = table.chains[name].hook if verb == "add" else None
    if hook:
        chain.update(type=hook.type, hook=hook.hook, prio=hook.priority, policy="accept")
    return {verb: {"chain": chain}}


def _set(verb: str, table: Table, name: str, entry: Set) -> Json:
    kind = list(entry.type) if isinstance(entry.type, tuple) else entry.type
    described: dict[str, Json] = {
        "family": table.family,
        "table": table.name,
        "name": name,
        "type": kind,
    }
    if entry.verdicts:
        described["map"] = "verdict"
    if entry.intervals:
        described["flags"] = ["interval"]
    return {verb: {"map" if entry.verdicts else "set": described}}


def _elements(
    verb: str, table: Table, name: str, elements: Collection[Json], *, verdicts: bool
) -> Iterator[Json]:
    if elements:
        given = [[key, jump(chain)] for key, chain in elements] if verdicts else list(elements)
        yield {verb: {"element": {"family": table.family, "table": table.name, "name": name, "elem": given}}}


def _rules(table: Table, name: str, chain: Chain) -> Iterator[Json]:
    for rule in chain.rules:
        yield {
            "add": {"rule": {"family": table.family, "table": table.name, "chain": name, "expr": list(rule)}}
        }
