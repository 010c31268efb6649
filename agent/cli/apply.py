"""Verbs about the configuration: apply, check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection

from agent.cli import client
from agent.cli.output import print_json
from agent.cli.verbs import Subparsers, add_verb
from agent.model.errors import ApplianceError, ConfigurationError, Problem
from agent.model.paths import Paths

_WATCHED = "soak"


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register the verbs of this module."""
    apply = add_verb(verbs, common, "apply", _apply, help="make the host as /etc/appliance describes it")
    apply.add_argument("-n", "--dry-run", action="store_true", help="only show what would be done")
    apply.add_argument("--retry", action="store_true", help="also try configurations again that failed")
    check = add_verb(verbs, common, "check", _check, help="validate the configuration, without an agent")
    check.add_argument("directory", nargs="?", default=None, help="another directory than /etc/appliance")


def _apply(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        changes, problems, _ = client.apply(dry_run=True, retry=arguments.retry)
    else:
        changes, problems = apply_all(retry=arguments.retry, quiet=arguments.style.json)
    if arguments.style.json:
        print_json({"dry_run": arguments.dry_run, "changes": changes, "problems": problems}, arguments.style)
    else:
        for change in changes:
            print(f"would {_imperative(change)}" if arguments.dry_run else change)
        if not changes:
            print("Nothing to change.")
        say_problems(problems)
    return exit_status(problems)


def apply_all(*, retry: bool = False, quiet: bool = False) -> tuple[list[str], list[str]]:
    """Have the configuration applied, and wait until new configurations are in force, or are not; changes
    and problems. They are watched for a while yet, which nobody waits for."""
    changes, problems, operations = client.apply(retry=retry)
    for operation in operations:
        status = None
        for status in client.follow(operation):
            if status.phase == _WATCHED:
                break
            if status.state == "running" and not quiet:
                print(f"{status.appliance}: {status.message or 'beginning'} …", file=sys.stderr)
        if status is None or status.state in {"failed", "cancelled"}:
            problems.append(f"{status.appliance}: {status.message}" if status else f"{operation} is gone")
        elif status.state == "running":
            changes.append(f"{status.appliance}: runs with its new configuration; {status.message}")
        else:
            changes.append(f"{status.appliance}: {status.message}")
    return changes, problems


def say_problems(problems: Collection[str]) -> None:
    """What an apply could not do, on standard error."""
    for problem in problems:
        print(f"appliancectl: {problem}", file=sys.stderr)


def exit_status(problems: Collection[str]) -> int:
    """That of a verb which applied the configuration and was left with these problems."""
    return Problem.FAILED.exit_status if problems else 0


def _imperative(change: str) -> str:
    name, colon, text = change.partition(": ")
    return f"{text} ({name})" if colon else change


def _check(arguments: argparse.Namespace) -> int:
    # Reading YAML costs 30 ms, which only this verb pays.
    from pathlib import Path

    from agent.config.tree import read_tree
    from agent.host.configuration import read_appliance_files, read_configuration

    directory = Path(arguments.directory) if arguments.directory else Paths().configuration
    if not directory.is_dir():
        raise ApplianceError(f"There is no directory {directory}.", problem=Problem.NOT_FOUND)
    try:
        configuration = read_tree(read_configuration(directory))
        for name in configuration.appliances:
            read_appliance_files(directory / "config" / name)
    except ConfigurationError as error:
        if not arguments.style.json:
            raise
        findings = [
            {
                "path": finding.path,
                "line": finding.line,
                "column": finding.column,
                "message": finding.message,
            }
            for finding in error.findings
        ]
        print_json({"valid": False, "findings": findings}, arguments.style)
        return error.problem.exit_status
    if arguments.style.json:
        print_json({"valid": True, "findings": []}, arguments.style)
    else:
        counts = f"appliances: {len(configuration.appliances)}, networks: {len(configuration.networks)}"
        print(f"{directory}: no errors; {counts}.")
    return 0
