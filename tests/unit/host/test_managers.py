"""Files that keep other programs away from our interfaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.host import managers
from agent.host.managers import InterfaceManagers
from agent.model.errors import HostError
from agent.model.network import Bridge
from agent.model.paths import Paths

BRIDGES = [Bridge(name, "", "", frozenset(), 1500) for name in ("br-b", "br-a")]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    ran: list[str] = []
    monkeypatch.setattr(managers, "run", lambda argv: ran.append(argv[0]))
    return ran


def test_files(tmp_path: Path, ran: list[str]) -> None:
    found = InterfaceManagers(Paths(tmp_path))
    [change] = found.plan(BRIDGES)
    change.apply()
    networkd = (tmp_path / "run/systemd/network/10-appliance.network").read_text()
    assert networkd.endswith("[Match]\nName=ap-* br-a br-b\n\n[Link]\nUnmanaged=yes\n")
    manager = (tmp_path / "run/NetworkManager/conf.d/appliance.conf").read_text()
    assert "unmanaged-devices+=interface-name:ap-*;interface-name:br-a;interface-name:br-b" in manager
    assert ran == ["systemctl", "networkctl"]
    assert found.plan(BRIDGES) == []
    assert len(found.plan(BRIDGES[:1])) == 1
    found.remove()
    assert not list(tmp_path.glob("run/*/*/*appliance*"))
    found.remove()


def test_one_that_does_not_run_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fail(argv: tuple[str, ...]) -> None:
        ran.append(argv[0])
        raise HostError("inactive")

    monkeypatch.setattr(managers, "run", fail)
    [change] = InterfaceManagers(Paths(tmp_path)).plan(BRIDGES)
    change.apply()
    assert ran == ["systemctl"]
