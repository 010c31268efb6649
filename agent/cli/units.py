"""Verbs about appliances and their units: list, status, start, stop, restart, enable, disable, logs.

An appliance is a systemd unit, so what systemctl and journalctl do well is left to them.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import asdict

from agent.cli import client
from agent.cli.output import print_json, print_table
from agent.cli.verbs import Subparsers, add_verb
from agent.model.errors import ApplianceError, Problem
from agent.model.names import is_appliance_name, unit_of

_PAINTS = {"healthy": "good", "degraded": "warn", "starting": "warn", "failed": "bad", "stopped": "dim"}


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    add_verb(verbs, common, "list", _list, help="list all appliances (the default verb)")
    status = add_verb(
        verbs, common, "status", _status, help="show appliances in detail, with their last log lines"
    )
    _add_names(status, required=False)
    _add_lines(status, default=10)
    for verb, text in (
        ("start", "start appliances; returns when their services answer"),
        ("stop", "stop appliances cleanly"),
        ("restart", "stop and start appliances"),
    ):
        _add_names(add_verb(verbs, common, verb, _unit_verb, help=text), required=True)
    for verb, text in (
        ("enable", "start appliances at boot"),
        ("disable", "do not start appliances at boot"),
    ):
        parser = add_verb(verbs, common, verb, _unit_verb, help=text)
        parser.add_argument("--now", action="store_true", help="start or stop them as well")
        _add_names(parser, required=True)
    logs = add_verb(verbs, common, "logs", _logs, help="show the journal of an appliance")
    _add_names(logs, required=True)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines as they come")
    _add_lines(logs, default=None)


def _add_names(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+" if required else "*")


def _add_lines(parser: argparse.ArgumentParser, *, default: int | None) -> None:
    parser.add_argument("-n", "--lines", type=int, default=default, metavar="N", help="number of log lines")


def _list(arguments: argparse.Namespace) -> int:
    appliances = client.appliances()
    if arguments.style.json:
        print_json([asdict(appliance) for appliance in appliances], arguments.style)
        return 0
    rows = [
        [
            appliance.name,
            appliance.health,
            appliance.image or "-",
            ", ".join(appliance.addresses) or "-",
            _note(appliance),
        ]
        for appliance in appliances
    ]
    print_table(
        ["NAME", "HEALTH", "IMAGE", "ADDRESS", "NOTE"],
        rows,
        arguments.style,
        paints=_PAINTS,
        what="appliance",
    )
    return 0


def _note(appliance: client.ApplianceStatus) -> str:
    notes = [appliance.reason] if appliance.reason else []
    if appliance.restart_pending:
        notes.append("apply pending")
    return "; ".join(notes)


def _status(arguments: argparse.Namespace) -> int:
    names = arguments.names or [appliance.name for appliance in client.appliances()]
    shown = [client.appliance(name) for name in names]
    if arguments.style.json:
        print_json([asdict(appliance) for appliance in shown], arguments.style)
        return 0
    for number, appliance in enumerate(shown):
        if number:
            print()
        _print_details(appliance)
        pager = ["--no-pager"] if arguments.no_pager or len(shown) > 1 else []
        subprocess.run(
            ["systemctl", "status", f"--lines={arguments.lines}", *pager, appliance.unit], check=False
        )
    return 0 if all(appliance.health != "failed" for appliance in shown) else 1


def _print_details(appliance: client.ApplianceStatus) -> None:
    details = {
        "Appliance": appliance.name,
        "Health": f"{appliance.health}: {appliance.reason}" if appliance.reason else appliance.health,
        "Image": f"{appliance.image or '-'} ({appliance.digest})" if appliance.digest else "-",
        "Address": ", ".join(appliance.addresses) or "-",
        "Core": str(appliance.core),
        "Restarts": str(appliance.restarts),
        **(
            {"Pending": "it runs with an older configuration; `appliancectl apply` brings the new one"}
            if appliance.restart_pending
            else {}
        ),
    }
    for label, text in details.items():
        print(f"{label:>10}: {text}", flush=True)


def _unit_verb(arguments: argparse.Namespace) -> int:
    now = ["--now"] if getattr(arguments, "now", False) else []
    return _run(["systemctl", arguments.verb, *now, *_units(arguments.names)])


def _logs(arguments: argparse.Namespace) -> int:
    command = ["journalctl", *(word for unit in _units(arguments.names) for word in ("--unit", unit))]
    if arguments.follow:
        command.append("--follow")
    if arguments.lines is not None:
        command.append(f"--lines={arguments.lines}")
    if arguments.no_pager:
        command.append("--no-pager")
    if arguments.style.json:
        command.append(f"--output={'json' if arguments.style.json == 'short' else 'json-pretty'}")
    return _run(command)


def _units(names: list[str]) -> list[str]:
    known = _known()
    for name in names:
        if not is_appliance_name(name) or (known is not None and name not in known):
            raise client.unknown(name)
    return [unit_of(name) for name in names]


def _run(command: list[str]) -> int:
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError as error:
        raise ApplianceError(f"{command[0]} is not installed.", problem=Problem.NOT_SUPPORTED) from error


def _known() -> set[str] | None:
    """Names of all appliances; None where nobody can tell: systemd runs them without the agent, and so do
    these verbs."""
    try:
        return {appliance.name for appliance in client.appliances()}
    except ApplianceError as error:
        if error.problem is not Problem.UNAVAILABLE:
            raise
        return None
