"""How verbs are registered: one function each, `(arguments) -> exit status`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 (it has no public name)
else:
    Subparsers = object


def add_verb(
    verbs: Subparsers,
    common: argparse.ArgumentParser,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,  # noqa: A002 (argparse's own word)
) -> argparse.ArgumentParser:
    """Register a verb that takes the common options too, and return its parser for more."""
    parser = verbs.add_parser(name, parents=[common], help=help, description=help)
    parser.set_defaults(run=run)
    return parser
