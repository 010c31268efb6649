"""Loads our nftables rules through nft(8), and notices when somebody else changes them.

Nothing is read back to decide: what was loaded is known, and whoever changes it announces that on netlink.
What an agent that starts finds is not looked at but replaced, in one transaction.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from agent.model.change import Change, Effect
from agent.model.errors import HostError
from agent.model.link import FilterChain
from agent.plan.firewall import NAME, TABLES
from agent.plan.ruleset import Json, Ruleset, change, changed_parts, load, remove
from agent.util.run import run

_NFT = ("/usr/sbin/nft", "-j", "-f", "-")
_LIST_COUNTERS = ("/usr/sbin/nft", "-j", "list", "counters", "table", *TABLES[0])
_LIST_CHAINS = ("/usr/sbin/nft", "-j", "list", "chains")
_LIST_CHAIN = ("/usr/sbin/nft", "-j", "list", "chain")
_DROPPING = {"drop", "reject"}
_NAMED = 4
"""So many changed chains are named; more would be a list that nobody reads."""

# Others may load ten thousand rules at once, and each is told. asm-generic/socket.h
_SO_RCVBUFFORCE, _BUFFER_BYTES = 33, 8 << 20
# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWGEN = 15
_ATTRIBUTE_TABLE = 1
"""The number of the attribute that names the table, in messages of every kind."""
_NFTA_GEN_PROC_NAME = 3
_NLA_TYPE_MASK = 0x3FFF


class Firewall:
    """Blocking; one thread at a time, but for `lose`."""

    def __init__(self) -> None:
        self._loaded: Ruleset | None = None
        self._lost_by = ""
        self._losses = 0
        self._own = deque[int](maxlen=16)

    def plan(self, wanted: Ruleset) -> list[Change]:
        """What it takes to have exactly these rules. Nothing after it is to be done where it fails: guests
        without rules could do what they like."""
        if self._loaded == wanted:
            return []
        if self._loaded is None:
            by = f" ({self._lost_by} has changed it)" if self._lost_by else ""
            text = f"load the firewall{by}"
        else:
            names = changed_parts(self._loaded, wanted)
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            text = f"change the firewall: {', '.join(names[:_NAMED]) or 'sets'}{more}"
        return [Change(text, partial(self._load, wanted), effect=Effect.NEEDED)]

    def lose(self, process: str) -> None:
        """Somebody has changed our rules. May be called from any thread."""
        self._losses += 1
        self._lost_by = process
        self._loaded = None

    def is_own(self, process_id: int) -> bool:
        """Whether a change was made by us, by the port of the netlink socket that it came from."""
        return process_id in self._own

    def refused(self) -> dict[str, tuple[int, int]]:
        """How much of what each tap sent was dropped, since the rules were loaded: packets and bytes."""
        listed = json.loads(run(_LIST_COUNTERS))["nftables"]
        counters = (entry["counter"] for entry in listed if "counter" in entry)
        return {counter["name"]: (counter["packets"], counter["bytes"]) for counter in counters}

    def chains(self) -> list[FilterChain]:
        """Every chain that the kernel has, whoever made it. Where the last rule of one for what is forwarded
        drops everything, that is its policy, as with firewalld."""
        listed = json.loads(run(_LIST_CHAINS))["nftables"]
        chains = [_chain(entry["chain"]) for entry in listed if "chain" in entry]
        return [
            replace(chain, policy="drop") if chain.hook == "forward" and self._ends_in_drop(chain) else chain
            for chain in chains
        ]

    def _ends_in_drop(self, chain: FilterChain) -> bool:
        listed = json.loads(run((*_LIST_CHAIN, chain.family, chain.table, chain.name)))["nftables"]
        rules = [entry["rule"]["expr"] for entry in listed if "rule" in entry]
        kinds = {kind for statement in rules[-1] for kind in statement} if rules else set()
        return bool(kinds & _DROPPING) and kinds <= _DROPPING | {"counter", "log"}

    def rules(self, family: str, table: str) -> Json:
        """What is in a table, as libnftables-json(5) has it."""
        return json.loads(run(("/usr/sbin/nft", "-j", "list", "table", family, table)))["nftables"]

    def remove(self) -> None:
        """Leave nothing of ours."""
        self._run(remove(TABLES))
        self._loaded = None

    def _load(self, wanted: Ruleset) -> None:
        losses, loaded, self._loaded = self._losses, self._loaded, None
        commands = change(loaded, wanted) if loaded is not None else None
        try:
            self._run(load(wanted) if commands is None else commands)
        except HostError:
            if commands is None:
                raise
            # The rules were not what we took them for; the news of that is still under way.
            self._run(load(wanted))
        if losses == self._losses:
            self._loaded, self._lost_by = wanted, ""

    def _run(self, commands: Sequence[Json]) -> None:
        if commands:
            text = json.dumps({"nftables": commands}, separators=(",", ":"))
            run(_NFT, stdin=text.encode(), on_start=self._own.append)


def _chain(entry: Json) -> FilterChain:
    hook, policy = entry.get("hook", ""), entry.get("policy", "")
    return FilterChain(entry["family"], entry["table"], entry["name"], hook, policy)


class FirewallMonitor:
    """A socket that becomes readable when somebody changes nftables rules; for the event loop."""

    def __init__(self, is_own: Callable[[int], bool]) -> None:
        self._is_own = is_own
        self._touched = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)

    def fileno(self) -> int:
        """For loop.add_reader."""
        return self._socket.fileno()

    def read(self) -> str | None:
        """The name of a process that has changed a table of ours since this was called last; None where
        nobody has."""
        found = None
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # More happened than there was room for; it may have been about us.
                self._touched, found = False, "somebody"
                continue
            found = self._read(data) or found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _read(self, data: bytes) -> str | None:
        """Who has changed something of ours, if these messages end a transaction that did."""
        found = None
        for kind, port, attributes in _messages(data):
            if kind == _NFT_MSG_NEWGEN:
                if self._touched and not self._is_own(port):
                    found = (
                        attributes.get(_NFTA_GEN_PROC_NAME, b"somebody")
                        .rstrip(b"\0")
                        .decode("utf-8", "replace")
                    )
                self._touched = False
            elif attributes.get(_ATTRIBUTE_TABLE, b"").rstrip(b"\0") == NAME.encode():
                self._touched = True
        return found


def _messages(data: bytes) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Type, port of the sender's socket, and attributes of each message about nftables."""
    offset = 0
    while offset + 20 <= len(data):
        length, kind, _flags, _sequence, port = struct.unpack_from("=IHHII", data, offset)
        if length < 20:
            return
        if kind >> 8 == _NFNL_SUBSYS_NFTABLES:
            yield kind & 0xFF, port, _attributes(data[offset + 20 : offset + length])
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
