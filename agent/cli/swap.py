"""Verbs about swaps: swap, rollback, history; and `image quarantine`, what they found out."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from agent.cli import client
from agent.cli.output import format_time, print_json, print_table
from agent.cli.verbs import Subparsers, add_verb
from agent.model.errors import ApplianceError, Problem

_PAINTS = {"committed": "good", "refused": "warn", "rolled-back": "warn", "failed": "bad"}


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    swap = add_verb(
        verbs, common, "swap", _swap, help="replace the image of an appliance; goes back if it fails"
    )
    swap.add_argument("name", metavar="NAME")
    swap.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        default="",
        help="NAME, NAME:VERSION or sha256:DIGEST; without it the newest that its configuration may mean",
    )
    swap.add_argument(
        "--accept", action="store_true", help="grant what the new image asks for beyond the old one"
    )
    add_waiting(swap)
    rollback = add_verb(
        verbs,
        common,
        "rollback",
        _rollback,
        help="go back to the image and the configuration before the last swap",
    )
    rollback.add_argument("name", metavar="NAME")
    rollback.add_argument("--with-data", action="store_true", help="go back to the data volume of then, too")
    add_waiting(rollback)
    history = add_verb(
        verbs,
        common,
        "history",
        _history,
        help="show the swaps of an appliance, of images and configurations",
    )
    history.add_argument("name", metavar="NAME")


def add_waiting(parser: argparse.ArgumentParser) -> None:
    """Register the option of verbs that begin an operation."""
    parser.add_argument("--no-wait", action="store_true", help="return as soon as it has begun")


def add_image_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register what comes after `image`."""
    quarantine = add_verb(
        verbs, common, "quarantine", _list_quarantine, help="show or clear images that failed here"
    )
    own = quarantine.add_subparsers(title="verbs", metavar="VERB", dest="quarantine_verb")
    add_verb(own, common, "list", _list_quarantine, help="list them (the default verb)")
    clear = add_verb(own, common, "clear", _clear_quarantine, help="let them be tried again by themselves")
    clear.add_argument("name", metavar="NAME", help="the appliance in which they failed")
    clear.add_argument(
        "digest", metavar="DIGEST", nargs="?", default="", help="sha256:…; all where it is missing"
    )


def _swap(arguments: argparse.Namespace) -> int:
    return carry_on(client.swap(arguments.name, arguments.image, accept=arguments.accept), arguments)


def _rollback(arguments: argparse.Namespace) -> int:
    return carry_on(client.rollback(arguments.name, with_data=arguments.with_data), arguments)


def carry_on(operation: str, arguments: argparse.Namespace, **details: str) -> int:
    """Show an operation until its end; its exit status. `details` go into its JSON."""
    if arguments.no_wait:
        if arguments.style.json:
            print_json({"operation": operation, **details}, arguments.style)
        else:
            print(operation)
        return 0
    status = None
    try:
        for status in client.follow(operation):
            if status.state == "running" and not arguments.style.json:
                print(f"{status.appliance}: {status.message or 'beginning'} …", file=sys.stderr)
    except KeyboardInterrupt:
        print("It goes on without you; the journal shows how it ended.", file=sys.stderr)
        raise
    if status is None:
        raise ApplianceError("The operation is gone.", problem=Problem.UNAVAILABLE)
    if status.state != "succeeded":
        raise ApplianceError(f"{status.appliance}: {status.message}")
    if arguments.style.json:
        print_json(
            {
                "appliance": status.appliance,
                "state": status.state,
                "message": status.message,
                **details,
            },
            arguments.style,
        )
    else:
        print(f"{status.appliance}: {status.message}")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    entries = client.history(arguments.name)
    if arguments.style.json:
        print_json([asdict(entry) for entry in entries], arguments.style)
        return 0
    rows = [
        [
            str(entry.number),
            format_time(entry.ended_us),
            *_ends(entry),
            entry.result,
            f"{entry.downtime_us / 1000:.0f} ms" if entry.downtime_us else "-",
            entry.reason or "-",
        ]
        for entry in entries
    ]
    columns = ["NO", "ENDED", "FROM", "TO", "RESULT", "NO ANSWER", "REASON"]
    print_table(columns, rows, arguments.style, paints=_PAINTS, what="swap")
    return 0


def _ends(entry: client.SwapRecord) -> tuple[str, str]:
    """What it came from and went to, by what is different."""
    if entry.old_digest != entry.new_digest:
        return entry.old_image, entry.new_image
    return f"configuration {entry.old_configuration}", f"configuration {entry.new_configuration}"


def _list_quarantine(arguments: argparse.Namespace) -> int:
    entries = client.quarantine()
    if arguments.style.json:
        keys = ("appliance", "image", "digest", "reason", "since_us")
        print_json([dict(zip(keys, entry, strict=True)) for entry in entries], arguments.style)
        return 0
    rows = [
        [name, image, digest[:19], format_time(since), reason]
        for name, image, digest, reason, since in entries
    ]
    columns = ["APPLIANCE", "IMAGE", "DIGEST", "SINCE", "REASON"]
    print_table(columns, rows, arguments.style, what="quarantined image")
    return 0


def _clear_quarantine(arguments: argparse.Namespace) -> int:
    cleared = client.clear_quarantine(arguments.name, arguments.digest)
    if arguments.style.json:
        print_json({"cleared": cleared}, arguments.style)
    elif cleared:
        print(f"{arguments.name}: {cleared} cleared.")
    else:
        raise ApplianceError(f"{arguments.name}: nothing of that is quarantined.", problem=Problem.NOT_FOUND)
    return 0
