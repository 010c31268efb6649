"""appliancectl: parses the command line, calls one verb, and turns errors into a message and an exit
status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from agent import __version__
from agent.cli import apply, data, swap, units, update
from agent.cli.output import Style
from agent.model.errors import ApplianceError

EXIT_USAGE = 2
_STATUSES = """exit status:
  0  done          3  configuration refused   7  in use          11  no space left
  1  failed        4  not found               8  busy            12  timed out
  2  wrong usage   5  exists already          9  not supported   13  agent unavailable
                   6  image not valid        10  access denied      14  archive not valid
"""


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="appliancectl",
        description="Look after the server appliances of this host.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"appliancectl {__version__}")
    _add_output_options(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    _add_output_options(common)
    units.add_verbs(verbs, common)
    apply.add_verbs(verbs, common)
    swap.add_verbs(verbs, common)
    data.add_verbs(verbs, common)
    update.add_verbs(verbs, common)
    # The rest is loaded when it is asked for: its imports would cost every other verb 60 ms.
    if _wants(argv, "doctor"):
        from agent.cli import doctor

        doctor.add_verbs(verbs, common)
    else:
        verbs.add_parser("doctor", help="tell whether this host can run appliances")
    if _wants(argv, "image"):
        from agent.cli import image

        image.add_verbs(verbs, common)
    else:
        verbs.add_parser("image", help="build, import, list, show, verify and remove images")
    if _wants(argv, "network"):
        from agent.cli import network

        network.add_verbs(verbs, common)
    else:
        verbs.add_parser("network", help="show networks, and find what is broken in them")
    return parser


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        choices=("pretty", "short"),
        metavar="pretty|short",
        help="print JSON instead of a table",
    )
    parser.add_argument("--no-legend", action="store_true", help="print neither header nor count")
    parser.add_argument("--no-pager", action="store_true", help="do not page the output of logs and status")


def _wants(argv: Sequence[str], verb: str) -> bool:
    return next((word for word in argv if not word.startswith("-")), "") == verb


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit status."""
    # argparse would take the word after a bare --json for its value.
    words = sys.argv[1:] if argv is None else argv
    argv = ["--json=pretty" if word == "--json" else word for word in words]
    parser = _parser(argv)
    arguments = parser.parse_args(argv)
    if not arguments.verb:
        arguments = parser.parse_args([*argv, "list"])
    arguments.style = Style(json=arguments.json or "", legend=not arguments.no_legend)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except ApplianceError as error:
        print(f"appliancectl: {error}", file=sys.stderr)
        return error.problem.exit_status
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
