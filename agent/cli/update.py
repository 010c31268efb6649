"""The verb `update`: newer images of the store for the appliances that follow them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import asdict

from agent.cli import client
from agent.cli.output import print_json, print_table
from agent.cli.verbs import Subparsers, add_verb
from agent.model.errors import ApplianceError, Problem
from agent.model.update import Progress, Standing

_PAINTS = {"staged": "good", "up to date": "dim", "will be updated": "good"}
_UNDER_WAY = {Progress.UPDATING, Standing.DUE}


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register the verb of this module."""
    update = add_verb(
        verbs, common, "update", _update, help="swap appliances to the newest images they may have"
    )
    update.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="whatever their policy and window; without one, those whose policy is auto, in their window",
    )
    update.add_argument(
        "--check", action="store_true", help="show what would happen and why, and do nothing"
    )
    update.add_argument("--retry", action="store_true", help="also try images that are quarantined")
    # What units/appliance-update.service says: nobody looks on, and failures are events already.
    update.add_argument("--timer", action="store_true", help=argparse.SUPPRESS)


def _update(arguments: argparse.Namespace) -> int:
    if arguments.check:
        return _check(arguments)
    try:
        operation = client.update(arguments.names, retry=arguments.retry)
    except ApplianceError as error:
        if arguments.timer and error.problem is Problem.BUSY:
            return 0
        raise
    results = _follow(operation, arguments)
    if arguments.style.json:
        print_json([asdict(result) for result in results], arguments.style)
    elif not arguments.timer and not any(_is_told(result, arguments) for result in results):
        print("Nothing to update.")
    return 0 if arguments.timer else _status(results, arguments.names)


def _follow(operation: str, arguments: argparse.Namespace) -> list[client.UpdateResult]:
    """Show a run until its end; what has become of each appliance."""
    told: set[client.UpdateResult] = set()
    results: list[client.UpdateResult] = []
    state = ""
    try:
        for status in client.follow(operation):
            state, results = status.state, client.update_run(operation)
            for result in results:
                if result not in told and (state != "running" or result.result in list(Progress)):
                    told.add(result)
                    _tell(result, arguments)
    except KeyboardInterrupt:
        print("It goes on without you; `appliancectl history` shows how it ended.", file=sys.stderr)
        raise
    if state == "cancelled":
        raise ApplianceError("The run of updates was cancelled.")
    return results


def _tell(result: client.UpdateResult, arguments: argparse.Namespace) -> None:
    if arguments.style.json or not _is_told(result, arguments):
        return
    if result.result in _UNDER_WAY:
        print(f"{result.name}: {result.message} …", file=sys.stderr)
    elif result.result == Progress.FAILED:
        print(f"{result.name}: {result.message}", file=sys.stderr)
    else:
        print(f"{result.name}: {result.message}")


def _is_told(result: client.UpdateResult, arguments: argparse.Namespace) -> bool:
    """What was done; and of those that were named, also what was not."""
    return result.result in list(Progress) or result.name in arguments.names


def _status(results: Collection[client.UpdateResult], names: Collection[str]) -> int:
    """0 where nothing failed and what was named has the newest image."""
    done = {Progress.UPDATED, Standing.UP_TO_DATE}
    failed = (
        result.result == Progress.FAILED or (result.name in names and result.result not in done)
        for result in results
    )
    return 1 if any(failed) else 0


def _check(arguments: argparse.Namespace) -> int:
    updates = client.check_updates(arguments.names)
    if arguments.style.json:
        print_json([asdict(update) for update in updates], arguments.style)
        return 0
    rows = [
        [
            update.name,
            update.image or "-",
            update.new_image if update.standing not in _SAME else "-",
            update.policy,
            update.reason,
        ]
        for update in updates
    ]
    columns = ["APPLIANCE", "IMAGE", "AVAILABLE", "POLICY", "UPDATE"]
    print_table(columns, rows, arguments.style, paints=_PAINTS, what="appliance")
    return 0


_SAME = {Standing.NO_IMAGE, Standing.UP_TO_DATE}
