"""`data export` and `data import` as verbs; the agent is what the client's functions say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import client, transfer
from agent.cli.main import main
from agent.host import arrival
from agent.host.snapshots import VolumeSnapshots
from agent.model.data import SnapshotNote
from agent.model.errors import Problem
from agent.model.paths import Paths
from tests.fakes.samples import NETWORK, sample_image
from tests.unit.host.test_transfer import Store

IMAGE = sample_image()
STATUS = client.ApplianceStatus(
    name="dns",
    unit="appliance@dns.service",
    image=IMAGE.manifest.reference,
    digest=str(IMAGE.digest),
    state="active",
    health="healthy",
    reason="",
    addresses=(),
    since_us=0,
    restarts=0,
    core=0,
    restart_pending=False,
)


class FakeAgent:
    """What export and import ask of the agent."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.volumes = VolumeSnapshots(paths)
        self.fails = False
        self.done: list[str] = []

    def data(self, name: str) -> client.DataStatus:
        volume = self.volumes.volume(name)
        return client.DataStatus(volume.path, volume.size_bytes, volume.used_bytes, 1, shared=False)

    def snapshots(self, name: str) -> list[client.SnapshotStatus]:
        return [
            client.SnapshotStatus(
                file.name, 5, file.size_bytes, file.used_bytes, 1, file.note.maker if file.note else ""
            )
            for file in self.volumes.snapshot_files(name)
        ]

    def take_snapshot(self, name: str, snapshot: str) -> tuple[str, str]:
        self.done.append("take")
        self.volumes.take(name, snapshot, SnapshotNote("the administrator", 1, 5))
        return "/operation", snapshot

    def follow(self, _operation: str) -> Iterator[client.OperationStatus]:
        yield client.OperationStatus(1, "snapshot", "dns", "running", "switch", "")
        state = "failed" if self.fails else "succeeded"
        yield client.OperationStatus(1, "snapshot", "dns", state, "switch", "stopped for 5 ms")

    def remove_snapshot(self, name: str, snapshot: str) -> None:
        self.done.append("remove")
        self.volumes.delete(name, snapshot)

    def apply(self, *, retry: bool) -> tuple[list[str], list[str], list[str]]:
        assert not retry
        self.done.append("apply")
        return ["changed"], [], []


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    try:
        os.chown(tmp_path, 0, os.getgid())
    except PermissionError:
        pytest.skip("files cannot be given to root")
    paths = Paths(tmp_path)
    for name in ("networks", "appliances", "config/dns/zones"):
        (paths.configuration / name).mkdir(parents=True)
    (paths.configuration / "networks/default.yaml").write_text(NETWORK)
    (paths.configuration / "appliances/dns.yaml").write_text("image: dns-nsd\n")
    (paths.configuration / "config/dns/zones/a.zone").write_text("zone")
    volume = paths.data_volume("dns")
    volume.parent.mkdir(parents=True)
    volume.write_bytes(b"data" + bytes(1 << 20))
    fake = FakeAgent(paths)
    for name in ("data", "snapshots", "take_snapshot", "follow", "remove_snapshot", "apply"):
        monkeypatch.setattr(client, name, getattr(fake, name))
    monkeypatch.setattr(client, "appliance", lambda _name: STATUS)
    monkeypatch.setattr(client, "appliances", lambda: [STATUS])
    monkeypatch.setattr(transfer, "Paths", lambda: paths)
    monkeypatch.setattr(arrival, "ImageStore", Store)
    monkeypatch.setattr(arrival, "user_id", lambda _name: 900)
    monkeypatch.setattr(arrival, "group_id", lambda _name: os.getgid())
    return fake


def test_out_and_in_again(agent: FakeAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dns.archive"
    assert main(["data", "export", "dns", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"dns: {file}, ")
    assert said.err == "dns: stopped for 5 ms\n"
    assert agent.done == ["take", "remove"]
    assert agent.snapshots("dns") == []
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["data", "import", str(file), "--name", "dns-2", "--json=short"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["appliance"], record["aside"], record["changes"]) == ("dns-2", "", ["changed"])
    assert agent.paths.data_volume("dns-2").read_bytes() == agent.paths.data_volume("dns").read_bytes()
    assert (agent.paths.configuration / "config/dns-2/zones/a.zone").read_text() == "zone"
    assert [path.name for path in agent.paths.state.iterdir()] == ["appliances"]


def test_what_is_here_is_not_overwritten(
    agent: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "dns.archive")
    assert main(["data", "export", "dns", file, "--json=short"]) == 0
    assert json.loads(capsys.readouterr().out)["members"] == [
        "appliance.yaml",
        "config/zones/a.zone",
        "data.img",
    ]
    assert main(["data", "import", file]) == Problem.ALREADY_EXISTS.exit_status
    assert main(["data", "import", file, "--replace"]) == Problem.IN_USE.exit_status
    assert main(["data", "import", file, "--name", "Not"]) == Problem.NOT_SUPPORTED.exit_status
    assert "apply" not in agent.done
    monkeypatch.setattr(client, "appliances", list)
    capsys.readouterr()
    assert main(["data", "import", file, "--replace"]) == 0
    assert "the data of before are snapshot before-" in capsys.readouterr().out


def test_a_snapshot_that_there_is(agent: FakeAgent, tmp_path: Path) -> None:
    agent.take_snapshot("dns", "kept")
    file = str(tmp_path / "x")
    assert main(["data", "export", "dns", file, "--snapshot", "kept"]) == 0
    assert agent.done == ["take"]
    assert main(["data", "export", "dns", file, "--snapshot", "none"]) == Problem.NOT_FOUND.exit_status


def test_a_snapshot_that_fails(agent: FakeAgent, tmp_path: Path) -> None:
    agent.fails = True
    assert main(["data", "export", "dns", str(tmp_path / "x")]) == 1
    assert not (tmp_path / "x").exists()


def test_files_that_are_none(agent: FakeAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(tmp_path / "none")]) == Problem.NOT_FOUND.exit_status
    (tmp_path / "bad").write_bytes(b"no archive" * 100)
    assert main(["data", "import", str(tmp_path / "bad")]) == Problem.INVALID_ARCHIVE.exit_status
    assert "The archive cannot be used: it is no archive of an appliance." in capsys.readouterr().err
    assert agent.done == []
    assert main(["data", "export", "dns", str(tmp_path / "none/x")]) == Problem.NOT_FOUND.exit_status
