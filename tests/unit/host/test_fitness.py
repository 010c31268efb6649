"""doctor: whatever is found, there is a verdict, and what is wrong has a remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.host import fitness
from agent.host.fitness import Fitness, Verdict, examine
from agent.model.errors import HostError

OK, WARNING, FAILED = Verdict.OK, Verdict.WARNING, Verdict.FAILED


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's files are those below a directory."""
    monkeypatch.setattr(fitness, "Path", lambda path: tmp_path / path.lstrip("/"))
    return tmp_path


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_this_machine_whatever_it_is() -> None:
    found = examine()
    assert len({finding.subject for finding in found}) == len(found) == 12
    assert all(finding.text for finding in found)
    assert [finding for finding in found if bool(finding.remedy) == (finding.verdict is OK)] == []


@pytest.mark.parametrize(
    ("check", "path", "text", "verdict"),
    [
        (fitness._ptrace, "proc/sys/kernel/yama/ptrace_scope", "0\n", OK),
        (fitness._ptrace, "proc/sys/kernel/yama/ptrace_scope", "1\n", OK),
        (fitness._ptrace, "proc/sys/kernel/yama/ptrace_scope", "2\n", FAILED),
        (fitness._ptrace, "proc/sys/kernel/yama/ptrace_scope", "3\n", FAILED),
        (fitness._ptrace, "no/yama", "", OK),
        (fitness._memory_files, "proc/filesystems", "nodev\tsysfs\nnodev\ttmpfs\n", OK),
        (fitness._memory_files, "proc/filesystems", "nodev\tsysfs\n", FAILED),
        (fitness._memory_limits, "sys/fs/cgroup/cgroup.controllers", "cpu memory io\n", OK),
        (fitness._memory_limits, "sys/fs/cgroup/cgroup.controllers", "cpu io\n", WARNING),
        (fitness._memory_limits, "sys/fs/cgroup/memory/tasks", "", OK),
        (fitness._memory_limits, "sys/fs/cgroup/cpu/tasks", "", WARNING),
        (fitness._free_memory, "proc/meminfo", "MemTotal: 9 kB\nMemAvailable:  999999 kB\n", OK),
        (fitness._free_memory, "proc/meminfo", "MemTotal: 9 kB\nMemAvailable:  9999 kB\n", WARNING),
    ],
)
def test_what_the_host_s_files_say(
    host: Path, check: Callable[[], Fitness], path: str, text: str, verdict: Verdict
) -> None:
    write(host, path, text)
    found = check()
    assert (found.verdict, bool(found.remedy)) == (verdict, verdict is not OK)


@pytest.mark.parametrize(("version", "verdict"), [(251, FAILED), (252, WARNING), (253, OK), (257, OK)])
def test_versions_of_systemd(
    host: Path, monkeypatch: pytest.MonkeyPatch, version: int, verdict: Verdict
) -> None:
    (host / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(fitness, "systemd_version", lambda: version)
    assert fitness._systemd().verdict is verdict


def test_another_init_system(host: Path) -> None:
    del host
    assert fitness._systemd().verdict is FAILED


@pytest.mark.parametrize(("state", "verdict"), [(b"active\n", OK), (b"failed\n", FAILED), (b"", FAILED)])
def test_the_agent_s_own_unit(monkeypatch: pytest.MonkeyPatch, state: bytes, verdict: Verdict) -> None:
    monkeypatch.setattr(fitness, "run", lambda _argv: state)
    assert fitness._agent_unit().verdict is verdict


def test_systemctl_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_argv: list[str]) -> bytes:
        raise HostError("systemctl failed with exit status 1.")

    monkeypatch.setattr(fitness, "run", fail)
    found = fitness._agent_unit()
    assert (found.verdict, bool(found.remedy)) == (FAILED, True)


def test_a_host_that_takes_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_argv: list[str], *, stdin: bytes) -> bytes:
        raise HostError(f"nft failed with exit status 1: {len(stdin)} bytes are too many")

    monkeypatch.setattr(fitness, "run", fail)
    found = fitness._firewall()
    assert (found.verdict, bool(found.remedy)) == (FAILED, True)
    assert found.text.startswith("nft failed")


@pytest.mark.parametrize(("machine", "verdict"), [("x86_64", OK), ("aarch64", FAILED)])
def test_architectures(monkeypatch: pytest.MonkeyPatch, machine: str, verdict: Verdict) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert fitness._architecture().verdict is verdict


def test_the_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Fitness("tun", FAILED, "no tun", "Load it."), Fitness("disk", OK, "much free")]
    monkeypatch.setattr("agent.cli.doctor.examine", lambda: found)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"^tun +failed +no tun$", text, re.MULTILINE)
    assert text.endswith("\ntun: Load it.\n")
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[1] == {
        "subject": "disk",
        "verdict": "ok",
        "text": "much free",
        "remedy": "",
    }
    found.pop(0)
    assert main(["doctor"]) == 0
