"""The verb doctor: is this host fit to run appliances, and if not, what is to be done."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from agent.cli.output import print_json, print_table
from agent.cli.verbs import Subparsers, add_verb
from agent.host.fitness import Verdict, examine

_PAINTS = {"ok": "good", "warning": "warn", "failed": "bad"}


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register the verb of this module."""
    add_verb(verbs, common, "doctor", _doctor, help="tell whether this host can run appliances")


def _doctor(arguments: argparse.Namespace) -> int:
    findings = examine()
    if arguments.style.json:
        print_json([asdict(finding) for finding in findings], arguments.style)
    else:
        rows = [[finding.subject, str(finding.verdict), finding.text] for finding in findings]
        print_table(["SUBJECT", "VERDICT", "FOUND"], rows, arguments.style, paints=_PAINTS)
        for finding in findings:
            if finding.remedy:
                print(f"\n{finding.subject}: {finding.remedy}")
    return 1 if any(finding.verdict is Verdict.FAILED for finding in findings) else 0
