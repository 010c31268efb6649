"""doctor: whatever is found, there is a verdict, and what is wrong has a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.host import fitness
from agent.host.fitness import Verdict, examine
from agent.model.errors import HostError


def test_this_machine_whatever_it_is() -> None:
    found = examine()
    assert len({finding.subject for finding in found}) == len(found) == 12
    assert all(finding.text for finding in found)
    assert all(bool(finding.remedy) == (finding.verdict is not Verdict.OK) for finding in found)


def test_a_machine_without_systemctl(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(argv: list[str]) -> bytes:
        raise HostError(
            f"{argv[0]} is not installed.", remedy="`appliancectl doctor` lists what this host lacks."
        )

    monkeypatch.setattr(fitness, "run", missing)
    monkeypatch.setattr(Path, "is_dir", lambda _path: False)
    assert [finding.verdict for finding in examine() if finding.subject in {"systemd", "agent"}] == [
        Verdict.FAILED,
        Verdict.FAILED,
    ]
