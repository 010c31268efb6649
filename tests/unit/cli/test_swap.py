"""swap, rollback, history and image quarantine: what the agent is asked, what is shown, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agent.cli import client
from agent.cli.client import OperationStatus, SwapRecord
from agent.cli.main import main
from agent.model.errors import ApplianceError, Problem

PATH = "/org/appliance1/operation/3"


def status(state: str, message: str, phase: str = "soak") -> OperationStatus:
    return OperationStatus(3, "swap", "dns", state, phase, message)


WELL = [
    status("running", "", phase=""),
    status("running", "watching dns-nsd:4.7 for 30 s"),
    status("succeeded", "swapped from dns-nsd:4.6 to dns-nsd:4.7; no answer for 400 ms."),
]
RECORD = SwapRecord(
    number=1,
    old_image="dns-nsd:4.6",
    old_digest="sha256:00",
    new_image="dns-nsd:4.7",
    new_digest="sha256:01",
    result="committed",
    reason="",
    snapshot="",
    started_us=1,
    ended_us=2,
    downtime_us=412_300,
    old_configuration="",
    new_configuration="",
)


class FakeAgent:
    """What was asked, and what is answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.story = WELL
        self.records = [RECORD]
        self.quarantined = [("dns", "dns-nsd:4.7", f"sha256:{'01' * 32}", "no answer", 1)]

    def swap(self, name: str, image: str, *, accept: bool) -> str:
        self.asked.append(("swap", name, image, accept))
        return PATH

    def rollback(self, name: str, *, with_data: bool) -> str:
        self.asked.append(("rollback", name, with_data))
        return PATH

    def follow(self, operation: str) -> Iterator[OperationStatus]:
        assert operation == PATH
        yield from self.story

    def history(self, name: str) -> list[SwapRecord]:
        self.asked.append(("history", name))
        return self.records

    def quarantine(self) -> list[tuple[str, str, str, str, int]]:
        return self.quarantined

    def clear_quarantine(self, name: str, digest: str) -> int:
        self.asked.append(("clear", name, digest))
        return len(self.quarantined)


@pytest.fixture(autouse=True)
def agent(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    agent = FakeAgent()
    for name in ("swap", "rollback", "follow", "history", "quarantine", "clear_quarantine"):
        monkeypatch.setattr(client, name, getattr(agent, name))
    monkeypatch.setenv("TZ", "UTC")
    return agent


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["swap", "dns"], ("swap", "dns", "", False)),
        (["swap", "dns", "dns-nsd:4.7"], ("swap", "dns", "dns-nsd:4.7", False)),
        (["swap", "--accept", "dns", "dns-nsd"], ("swap", "dns", "dns-nsd", True)),
        (["rollback", "dns"], ("rollback", "dns", False)),
        (["rollback", "dns", "--with-data"], ("rollback", "dns", True)),
    ],
)
def test_what_is_asked(agent: FakeAgent, argv: list[str], asked: tuple[Any, ...]) -> None:
    assert main(argv) == 0
    assert agent.asked == [asked]


def test_progress_goes_beside_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swap", "dns"]) == 0
    out, error = capsys.readouterr()
    assert out == "dns: swapped from dns-nsd:4.6 to dns-nsd:4.7; no answer for 400 ms.\n"
    assert error == "dns: beginning …\ndns: watching dns-nsd:4.7 for 30 s …\n"


def test_json_is_the_result_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swap", "dns", "--json=short"]) == 0
    out, error = capsys.readouterr()
    assert (json.loads(out)["state"], error) == ("succeeded", "")


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_swap_that_did_not_come_to_be_is_an_error(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    agent.story = [status("running", "starting"), status(state, "back to dns-nsd:4.6")]
    assert main(["swap", "dns"]) == Problem.FAILED.exit_status
    out, error = capsys.readouterr()
    assert (out, error.splitlines()[-1]) == ("", "appliancectl: dns: back to dns-nsd:4.6")


def test_an_operation_that_is_gone(agent: FakeAgent) -> None:
    agent.story = []
    assert main(["swap", "dns"]) == Problem.UNAVAILABLE.exit_status


@pytest.mark.parametrize("verb", ["swap", "rollback"])
def test_not_waiting(agent: FakeAgent, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    agent.story = []
    assert main([verb, "dns", "--no-wait"]) == 0
    assert capsys.readouterr().out == f"{PATH}\n"
    assert main([verb, "dns", "--no-wait", "--json=short"]) == 0
    assert json.loads(capsys.readouterr().out) == {"operation": PATH}


def test_what_the_agent_refuses(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def busy(_name: str, _image: str, *, accept: bool) -> str:
        del accept
        raise ApplianceError("dns: a swap is under way.", problem=Problem.BUSY)

    monkeypatch.setattr(client, "swap", busy)
    assert main(["swap", "dns"]) == Problem.BUSY.exit_status
    assert capsys.readouterr() == ("", "appliancectl: dns: a swap is under way.\n")
    assert agent.asked == []


def test_whoever_goes_away_leaves_it_to_the_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow(_operation: str) -> Iterator[OperationStatus]:
        yield WELL[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "follow", follow)
    assert main(["swap", "dns"]) == 130
    assert "It goes on without you" in capsys.readouterr().err


def test_the_history(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.records.append(
        SwapRecord(2, "dns-nsd:4.7", "1", "dns-bind:9", "2", "rolled-back", "no answer", "", 3, 4, 0, "", "")
    )
    assert main(["history", "dns"]) == 0
    _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[3:] == ["dns-nsd:4.6", "dns-nsd:4.7", "committed", "412", "ms", "-"]
    assert second.split()[3:] == ["dns-nsd:4.7", "dns-bind:9", "rolled-back", "-", "no", "answer"]
    assert agent.asked == [("history", "dns")]


def test_a_configuration_in_the_history(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    image = ("dns-nsd:4.7", "sha256:01")
    agent.records[:] = [SwapRecord(1, *image, *image, "committed", "", "", 1, 2, 0, "aa", "bb")]
    assert main(["history", "dns"]) == 0
    _, row, *_ = capsys.readouterr().out.splitlines()
    assert row.split()[3:] == ["configuration", "aa", "configuration", "bb", "committed", "-", "-"]


def test_the_history_as_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "dns", "--json=short"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert (entry["new_digest"], entry["downtime_us"]) == ("sha256:01", 412_300)


@pytest.mark.parametrize("argv", [["image", "quarantine"], ["image", "quarantine", "list"]])
def test_the_quarantine(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:3] == ["dns", "dns-nsd:4.7", "sha256:010101010101"]
    assert row.endswith("no answer")
    assert main([*argv, "--json=short"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert (entry["appliance"], entry["digest"]) == ("dns", f"sha256:{'01' * 32}")


@pytest.mark.parametrize("digest", ["", "sha256:01"])
def test_clearing_the_quarantine(agent: FakeAgent, capsys: pytest.CaptureFixture[str], digest: str) -> None:
    argv = ["image", "quarantine", "clear", "dns", *filter(None, [digest])]
    assert main(argv) == 0
    assert (agent.asked, capsys.readouterr().out) == ([("clear", "dns", digest)], "dns: 1 cleared.\n")
    agent.quarantined.clear()
    assert main(argv) == Problem.NOT_FOUND.exit_status
