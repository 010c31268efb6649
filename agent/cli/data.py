"""Verbs about data volumes: show, snapshot, snapshots, restore, remove, resize, export, import.

The last three are done in agent.cli.resize and agent.cli.transfer, which are loaded when they are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict

from agent.cli import client
from agent.cli.output import format_bytes, format_time, print_json, print_table
from agent.cli.swap import add_waiting, carry_on
from agent.cli.verbs import Subparsers, add_verb

Verb = Callable[[argparse.Namespace], int]


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register `data` and its own verbs."""
    data = verbs.add_parser("data", help="show, copy, restore and move the data of an appliance")
    own = data.add_subparsers(title="verbs", metavar="VERB", dest="data_verb", required=True)
    _add(own, common, "show", _show, help="show the data volume of an appliance")
    taken = _add(
        own, common, "snapshot", _snapshot, help="take a snapshot; a running guest is stopped for it"
    )
    taken.add_argument(
        "snapshot", metavar="SNAPSHOT", nargs="?", default="", help="its name; the time where it is missing"
    )
    add_waiting(taken)
    _add(own, common, "snapshots", _list, help="list the snapshots of an appliance")
    restored = _add(
        own, common, "restore", _restore, help="make a snapshot the data volume; goes back if that fails"
    )
    restored.add_argument("snapshot", metavar="SNAPSHOT")
    add_waiting(restored)
    removed = _add(own, common, "remove", _remove, help="remove a snapshot")
    removed.add_argument("snapshot", metavar="SNAPSHOT")
    resized = _add(own, common, "resize", _resize, help="make the data volume larger")
    resized.add_argument("size", metavar="SIZE", help="512M or 2G, for example")
    _add_transfers(own, common)


def _add_transfers(own: Subparsers, common: argparse.ArgumentParser) -> None:
    exported = _add(own, common, "export", _export, help="write configuration and data into one archive")
    exported.add_argument("file", metavar="FILE", help="- is standard output")
    exported.add_argument(
        "--snapshot", metavar="SNAPSHOT", default="", help="this one instead of one that is taken now"
    )
    exported.add_argument("--with-image", action="store_true", help="put the image into it, too")
    imported = add_verb(own, common, "import", _import, help="make an appliance from an archive")
    imported.add_argument("file", metavar="FILE")
    imported.add_argument(
        "--name", metavar="NAME", dest="appliance", default="", help="call it so, not as it was called"
    )
    imported.add_argument(
        "--replace", action="store_true", help="take the place of a stopped appliance of that name"
    )


def _resize(arguments: argparse.Namespace) -> int:
    from agent.cli import resize

    return resize.resize(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from agent.cli import transfer

    return transfer.export(arguments)


def _import(arguments: argparse.Namespace) -> int:
    from agent.cli import transfer

    return transfer.import_(arguments)


def _add(
    own: Subparsers,
    common: argparse.ArgumentParser,
    name: str,
    run: Verb,
    *,
    help: str,  # noqa: A002 (argparse's own word)
) -> argparse.ArgumentParser:
    parser = add_verb(own, common, name, run, help=help)
    parser.add_argument("name", metavar="NAME", help="the appliance")
    return parser


def _show(arguments: argparse.Namespace) -> int:
    data, snapshots = client.data(arguments.name), client.snapshots(arguments.name)
    used_bytes = sum(snapshot.used_bytes for snapshot in snapshots)
    if arguments.style.json:
        record = {"appliance": arguments.name, **asdict(data)}
        print_json(
            {**record, "snapshots": len(snapshots), "snapshots_used_bytes": used_bytes}, arguments.style
        )
        return 0
    facts = {
        "Appliance": arguments.name,
        "Path": data.path,
        "Size": format_bytes(data.size_bytes) if data.size_bytes else "there is no data volume",
        "On disk": format_bytes(data.used_bytes),
        "Format": str(data.format) if data.format else "nothing has been written",
        "Snapshots": f"{len(snapshots)}, {format_bytes(used_bytes)}" if snapshots else "none",
        "Sharing": "snapshots share blocks with the volume" if data.shared else "snapshots are full copies",
    }
    for label, text in facts.items():
        print(f"{label:>9}: {text}")
    return 0


def _snapshot(arguments: argparse.Namespace) -> int:
    operation, taken = client.take_snapshot(arguments.name, arguments.snapshot)
    return carry_on(operation, arguments, snapshot=taken)


def _restore(arguments: argparse.Namespace) -> int:
    operation, aside = client.restore_snapshot(arguments.name, arguments.snapshot)
    return carry_on(operation, arguments, snapshot=arguments.snapshot, aside=aside)


def _remove(arguments: argparse.Namespace) -> int:
    client.remove_snapshot(arguments.name, arguments.snapshot)
    if arguments.style.json:
        print_json({"appliance": arguments.name, "removed": arguments.snapshot}, arguments.style)
    else:
        print(f"{arguments.name}: snapshot {arguments.snapshot} removed.")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    snapshots = client.snapshots(arguments.name)
    if arguments.style.json:
        print_json([asdict(snapshot) for snapshot in snapshots], arguments.style)
        return 0
    rows = [
        [
            snapshot.name,
            format_time(snapshot.taken_us),
            format_bytes(snapshot.size_bytes),
            format_bytes(snapshot.used_bytes),
            str(snapshot.format) if snapshot.format else "-",
            snapshot.maker or "unknown",
        ]
        for snapshot in snapshots
    ]
    columns = ["SNAPSHOT", "TAKEN", "SIZE", "ON DISK", "FORMAT", "MADE BY"]
    print_table(columns, rows, arguments.style, what="snapshot")
    return 0
