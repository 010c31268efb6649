"""`data resize` as a verb; the agent is what the client's functions say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import client, resize
from agent.cli.main import main
from agent.model.errors import Problem
from agent.model.paths import Paths
from tests.fakes.samples import NETWORK

TEXT = "# the name server\nimage: dns-nsd\ndata: 8M  # for now\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    paths = Paths(tmp_path)
    for name in ("networks", "appliances"):
        (paths.configuration / name).mkdir(parents=True)
    (paths.configuration / "networks/default.yaml").write_text(NETWORK)
    file = paths.configuration / "appliances/dns.yaml"
    file.write_text(TEXT)
    file.chmod(0o640)
    monkeypatch.setattr(resize, "Paths", lambda: paths)
    monkeypatch.setattr(client, "data", lambda _name: client.DataStatus("", 8 << 20, 0, 1, shared=False))
    monkeypatch.setattr(client, "apply", lambda *, retry: ([f"dns: grow {retry}"], ["web: no image"], []))
    return file


def test_a_line_is_edited(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "resize", "dns", "2G"]) == 0
    assert file.read_text() == "# the name server\nimage: dns-nsd\ndata: 2G  # for now\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert capsys.readouterr().out == f"{file}: data: 2G\ndns: grow False\n"


def test_a_line_is_added(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("image: dns-nsd\n")
    assert main(["data", "resize", "dns", "2G", "--json=short"]) == 0
    assert file.read_text() == "image: dns-nsd\ndata: 2G\n"
    record = json.loads(capsys.readouterr().out)
    assert (record["size_bytes"], record["written"]) == (2 << 30, True)


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    file.rename(tmp_path / "elsewhere.yaml")
    file.symlink_to(tmp_path / "elsewhere.yaml")
    assert main(["data", "resize", "dns", "2G"]) == 0
    assert file.is_symlink()
    assert "data: 2G" in file.read_text()


@pytest.mark.parametrize(
    ("text", "size", "status", "words"),
    [
        (TEXT, "4M", Problem.NOT_SUPPORTED, "is not made smaller"),
        (TEXT, "much", Problem.NOT_SUPPORTED, "“much” is no size"),
        (TEXT, "17T", Problem.INVALID_CONFIGURATION, "dns.yaml:3:7: data: "),
        ("{image: dns-nsd, data: 8M}\n", "2G", Problem.INVALID_CONFIGURATION, "dns.yaml:"),
        ("image: dns-nsd\nmemory: x\n", "2G", Problem.INVALID_CONFIGURATION, "dns.yaml:2:9"),
    ],
)
def test_what_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str], text: str, size: str, status: Problem, words: str
) -> None:
    file.write_text(text)
    assert main(["data", "resize", "dns", size]) == status.exit_status
    assert words in capsys.readouterr().err
    assert file.read_text() == text


def test_a_file_that_cannot_be_edited(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a line of its own is the text of another key."""
    file.write_text('image: "dns-nsd:\\\ndata: 8M"\n')
    status = main(["data", "resize", "dns", "2G"])
    said = capsys.readouterr().err
    assert status in {Problem.NOT_SUPPORTED.exit_status, Problem.INVALID_CONFIGURATION.exit_status}, said


def test_an_appliance_without_data(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "data", lambda _name: client.DataStatus("", 0, 0, 0, shared=False))
    assert main(["data", "resize", "dns", "2G"]) == Problem.NOT_FOUND.exit_status
    assert "dns has no data volume" in capsys.readouterr().err
    assert file.read_text() == TEXT
