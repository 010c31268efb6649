"""The command line: verbs, options, errors and exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.cli import client
from agent.cli.client import ApplianceStatus, OperationStatus
from agent.cli.main import main
from agent.model.errors import ApplianceError, Problem

ROOT = Path(__file__).parents[3]

HEALTHY = ApplianceStatus(
    name="dns",
    unit="appliance@dns.service",
    image="dns-nsd:4.6",
    digest="sha256:00",
    state="active",
    health="healthy",
    reason="",
    addresses=("10.88.0.2", "fd00::2"),
    since_us=1,
    restarts=0,
    core=1,
    restart_pending=False,
)
FAILED = ApplianceStatus(
    name="web",
    unit="appliance@web.service",
    image="",
    digest="",
    state="failed",
    health="failed",
    reason="no image",
    addresses=(),
    since_us=2,
    restarts=3,
    core=0,
    restart_pending=True,
)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> list[ApplianceStatus]:
    """The agent's answer; empty it for a host without appliances."""
    appliances = [HEALTHY, FAILED]
    monkeypatch.setattr(client, "appliances", lambda: appliances)
    return appliances


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been run."""
    ran: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        ran.append(argv)
        return subprocess.CompletedProcess(argv, 7)

    monkeypatch.setattr("agent.cli.units.subprocess.run", run)
    return ran


@pytest.mark.usefixtures("agent")
def test_list_is_what_no_verb_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    expected = """\
NAME  HEALTH   IMAGE        ADDRESS             NOTE
dns   healthy  dns-nsd:4.6  10.88.0.2, fd00::2
web   failed   -            -                   no image; apply pending

2 appliances.
"""
    assert capsys.readouterr().out == expected
    assert main(["list"]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    "argv", [["list", "--json"], ["--json", "list"], ["--json=short", "list"], ["list", "--json=pretty"]]
)
def test_json_before_and_after_the_verb(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(argv) == 0
    text = capsys.readouterr().out
    [first, _] = json.loads(text)
    assert (first["name"], first["addresses"]) == ("dns", ["10.88.0.2", "fd00::2"])
    assert (len(text.splitlines()) == 1) == ("--json=short" in argv)


@pytest.mark.usefixtures("agent")
def test_no_legend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--no-legend"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["dns", "web"]


def test_no_appliances(agent: list[ApplianceStatus], capsys: pytest.CaptureFixture[str]) -> None:
    agent.clear()
    assert main(["list"]) == 0
    assert capsys.readouterr().out.endswith("\n0 appliances.\n")


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["start", "dns", "web"], ["systemctl", "start", "appliance@dns.service", "appliance@web.service"]),
        (["stop", "dns"], ["systemctl", "stop", "appliance@dns.service"]),
        (["restart", "dns"], ["systemctl", "restart", "appliance@dns.service"]),
        (["enable", "--now", "dns"], ["systemctl", "enable", "--now", "appliance@dns.service"]),
        (["disable", "dns"], ["systemctl", "disable", "appliance@dns.service"]),
        (["logs", "dns"], ["journalctl", "--unit", "appliance@dns.service"]),
        (
            ["logs", "dns", "web", "-f", "-n", "5", "--no-pager"],
            [
                "journalctl",
                "--unit",
                "appliance@dns.service",
                "--unit",
                "appliance@web.service",
                "--follow",
                "--lines=5",
                "--no-pager",
            ],
        ),
        (
            ["logs", "dns", "--json=short"],
            ["journalctl", "--unit", "appliance@dns.service", "--output=json"],
        ),
        (
            ["logs", "dns", "--json"],
            ["journalctl", "--unit", "appliance@dns.service", "--output=json-pretty"],
        ),
    ],
)
def test_what_systemd_does_is_left_to_it_with_its_exit_status(
    commands: list[list[str]], argv: list[str], expected: list[str]
) -> None:
    assert main(argv) == 7
    assert commands == [expected]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("name", ["nobody", "../dns", "dns.service", "--", "-x", "", "a b", "dns\nweb"])
def test_names_of_no_appliance_reach_no_program(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    try:
        status = main(["start", name])
    except SystemExit as usage:
        status = int(usage.code or 0)
    assert status in {2, Problem.NOT_FOUND.exit_status}
    assert commands == []
    assert capsys.readouterr().err


def test_units_start_and_stop_without_an_agent(
    monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    def unavailable() -> list[ApplianceStatus]:
        raise ApplianceError("The agent does not answer.", problem=Problem.UNAVAILABLE)

    monkeypatch.setattr(client, "appliances", unavailable)
    assert main(["stop", "dns"]) == 7
    assert commands == [["systemctl", "stop", "appliance@dns.service"]]
    assert main(["list"]) == Problem.UNAVAILABLE.exit_status


@pytest.mark.usefixtures("agent")
def test_status(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "dns"]) == 0
    assert main(["status"]) == 1
    text = capsys.readouterr().out
    assert "   Address: 10.88.0.2, fd00::2\n" in text
    assert "    Health: failed: no image\n" in text
    assert commands[0] == ["systemctl", "status", "--lines=10", "appliance@dns.service"]
    assert "--no-pager" in commands[1]


@pytest.mark.parametrize("problem", Problem)
def test_every_problem_becomes_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: Problem
) -> None:
    def fail() -> list[ApplianceStatus]:
        raise ApplianceError("It is so.", problem=problem, remedy="Do this.")

    monkeypatch.setattr(client, "appliances", fail)
    assert main(["list"]) == problem.exit_status
    assert capsys.readouterr().err == "appliancectl: It is so. Do this.\n"


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> list[ApplianceStatus]:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "appliances", interrupt)
    assert main(["list"]) == 130


def test_apply(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[bool, bool]] = []

    def apply(*, dry_run: bool = False, retry: bool = False) -> tuple[list[str], list[str], list[str]]:
        asked.append((dry_run, retry))
        return ["dns: restart", "create bridge br-x"], ["web: no image"], []

    monkeypatch.setattr(client, "apply", apply)
    assert main(["apply"]) == 1
    assert main(["apply", "--dry-run", "--retry"]) == 1
    assert asked == [(False, False), (True, True)]
    assert capsys.readouterr() == (
        "dns: restart\ncreate bridge br-x\nwould restart (dns)\nwould create bridge br-x\n",
        "appliancectl: web: no image\n" * 2,
    )
    monkeypatch.setattr(client, "apply", lambda **_: ([], [], []))
    assert main(["apply"]) == 0
    assert capsys.readouterr().out == "Nothing to change.\n"
    assert main(["apply", "--json=short"]) == 0
    assert capsys.readouterr().out == '{"dry_run": false, "changes": [], "problems": []}\n'


@pytest.mark.parametrize(
    ("story", "status", "told"),
    [
        ([("running", "trial", "trying"), ("running", "soak", "watching it")], 0, "dns: runs with its new"),
        ([("running", "prepare", "checking"), ("succeeded", "", "in force")], 0, "dns: in force"),
        ([("running", "prepare", "checking"), ("failed", "", "refused")], 1, "appliancectl: dns: refused"),
        ([], 1, "appliancectl: /operation is gone"),
    ],
)
def test_apply_waits_for_trials_and_not_for_the_watch(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    story: list[tuple[str, str, str]],
    status: int,
    told: str,
) -> None:
    steps = [OperationStatus(1, "reconfiguration", "dns", *step) for step in story]
    monkeypatch.setattr(client, "apply", lambda **_: ([], [], ["/operation"]))
    monkeypatch.setattr(client, "follow", lambda _path: iter(steps))
    assert main(["apply"]) == status
    out, error = capsys.readouterr()
    assert told in (error if status else out)
    assert ("dns: checking …" in error) == any(step.phase == "prepare" for step in steps)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    for name in ("networks", "appliances", "config/dns"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "networks/default.yaml").write_text("subnets: [10.88.0.0/24]\n")
    (tmp_path / "appliances/dns.yaml").write_text("image: dns-nsd\n")
    return tmp_path


def test_check(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(etc)]) == 0
    assert capsys.readouterr().out == f"{etc}: no errors; appliances: 1, networks: 1.\n"
    assert main(["check", str(etc), "--json=short"]) == 0
    assert json.loads(capsys.readouterr().out) == {"valid": True, "findings": []}


def test_check_says_everything_that_is_wrong(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (etc / "appliances/dns.yaml").write_text("image: x\nmemory: 1\n")
    (etc / "networks/default.yaml").write_text("subnets: [10.88.0.0/24]\nmtu: x\n")
    assert main(["check", str(etc)]) == Problem.INVALID_CONFIGURATION.exit_status
    assert capsys.readouterr().err.splitlines() == [
        f"appliancectl: {etc}/appliances/dns.yaml:2:9: memory: 1 is out of range (16M to 1T)",
        f"{etc}/networks/default.yaml:2:6: mtu: a number expected, found “x”",
    ]
    assert main(["check", "--json", str(etc)]) == Problem.INVALID_CONFIGURATION.exit_status
    [first, second] = json.loads(capsys.readouterr().out)["findings"]
    assert (first["line"], first["column"], second["line"]) == (2, 9, 2)


def test_check_looks_at_the_appliances_own_files(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (etc / "config/dns/zone").symlink_to("/etc/hostname")
    assert main(["check", str(etc)]) == Problem.INVALID_CONFIGURATION.exit_status
    assert "leads out of the appliance's configuration directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["start"], ["list", "--json=xml"], ["logs", "dns", "-n", "many"]]
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"appliancectl {__version__}\n")


def test_a_reader_that_has_seen_enough(etc: Path) -> None:
    """As in `appliancectl check | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.main", "check", str(etc)],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_common_verbs_load_little() -> None:
    code = "import sys; from agent.cli.main import main; main(['check', '/none']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    foreign = {"asyncio", "dbus_next", "pyroute2", "lxml", "agent.image.build", "agent.cli.network"}
    assert not foreign & loaded
