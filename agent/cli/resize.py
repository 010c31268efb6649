"""The verb data resize: writes the size into the appliance's YAML file, and has it applied.

The file stays the truth: what this verb writes is what an administrator would have written, and comments and
order stay as they are.
"""

from __future__ import annotations

import argparse
import stat
from dataclasses import replace
from pathlib import Path

from agent.cli import client
from agent.cli.apply import apply_all, exit_status, say_problems
from agent.cli.output import print_json
from agent.config.edit import with_key
from agent.config.tree import read_tree
from agent.config.units import format_size, parse_size
from agent.host.configuration import read_configuration
from agent.model.errors import ApplianceError, ConfigurationError, Problem
from agent.model.paths import Paths
from agent.util.files import explain_errors, write_file


def resize(arguments: argparse.Namespace) -> int:
    """Give a data volume another size."""
    name, size_bytes = arguments.name, parse_size(arguments.size)
    if size_bytes is None:
        message = f"“{arguments.size}” is no size: 512M or 2G, for example."
        raise ApplianceError(message, problem=Problem.NOT_SUPPORTED)
    _check_size(name, size_bytes)
    path = (Paths().configuration / "appliances" / f"{name}.yaml").resolve()
    with explain_errors(f"resizing the data volume of {name}"):
        before = path.read_bytes()
        after = with_key(before.decode(), "data", arguments.size).encode()
        _check_edit(name, path, after, size_bytes=size_bytes, text=arguments.size)
        if after != before:
            status = path.stat()
            write_file(path, after, mode=stat.S_IMODE(status.st_mode), group=status.st_gid)
    changes, problems = apply_all(quiet=arguments.style.json)
    if arguments.style.json:
        record = {"appliance": name, "size_bytes": size_bytes, "written": after != before}
        print_json({**record, "changes": changes, "problems": problems}, arguments.style)
    else:
        if after != before:
            print(f"{path}: data: {arguments.size}")
        print("\n".join(changes) or "Nothing to change.")
        say_problems(problems)
    return exit_status([text for text in problems if text.startswith(f"{name}: ")])


def _check_size(name: str, size_bytes: int) -> None:
    now_bytes = client.data(name).size_bytes
    if not now_bytes:
        raise ApplianceError(f"{name} has no data volume.", problem=Problem.NOT_FOUND)
    if size_bytes < now_bytes:
        raise ApplianceError(
            f"The data volume of {name} has {format_size(now_bytes)} and is not made smaller: a file system "
            "that shrinks may lose what it holds, and as a sparse file it takes no more than that anyway.",
            problem=Problem.NOT_SUPPORTED,
        )


def _check_edit(name: str, path: Path, content: bytes, *, size_bytes: int, text: str) -> None:
    """ApplianceError where the edited file would not say the same as before but for the size."""
    found = read_configuration(Paths().configuration)
    places = {place: content for place in found.appliances if Path(place).resolve() == path}
    wanted = read_tree(found).appliances
    wanted = {**wanted, name: replace(wanted[name], data_bytes=size_bytes)}
    try:
        edited = read_tree(replace(found, appliances={**found.appliances, **places})).appliances
    except ConfigurationError as error:
        message = f"With `data: {text}` in it, this is not valid, and was not written:\n{error}"
        raise ApplianceError(message, problem=error.problem) from error
    if edited != wanted:
        raise ApplianceError(
            f"{path} is not written in a way that can be edited here.",
            problem=Problem.NOT_SUPPORTED,
            remedy=f"Write `data: {text}` there, and `appliancectl apply`.",
        )
