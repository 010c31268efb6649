"""Which of the administrator's files are read, and which are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config.document import MAX_BYTES
from agent.host import configuration
from agent.host.configuration import read_appliance_files, read_configuration
from agent.model.errors import ConfigurationError


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    for name in ("agent.yaml.d", "networks", "appliances", "config/dns/zones"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def names(found: dict[str, bytes] | object) -> list[str]:
    assert isinstance(found, dict)
    return [Path(path).name for path in found]


def test_which_files_count(etc: Path) -> None:
    for name in (
        "agent.yaml",
        "agent.yaml.d/20-b.yaml",
        "agent.yaml.d/10-a.yaml",
        "networks/lan.yaml",
        "networks/lan.yml",
        "networks/.lan.yaml",
        "appliances/dns.yaml",
        "appliances/dns.yaml~",
        "appliances/.#web.yaml",
        "appliances/old.yaml.dpkg-old",
        "other.yaml",
    ):
        (etc / name).write_text(name)
    found = read_configuration(etc)
    assert names(found.agent) == ["agent.yaml", "10-a.yaml", "20-b.yaml"]
    assert found.networks == {str(etc / "networks/lan.yaml"): b"networks/lan.yaml"}
    assert names(found.appliances) == ["dns.yaml"]


def test_no_directory_is_an_empty_configuration(tmp_path: Path) -> None:
    found = read_configuration(tmp_path / "none")
    assert (found.agent, found.networks, found.appliances) == ({}, {}, {})


def test_files_that_cannot_be_read_are_named_together(etc: Path) -> None:
    (etc / "appliances/a.yaml").mkdir()
    (etc / "appliances/b.yaml").symlink_to("nowhere")
    (etc / "appliances/c.yaml").write_text("image: x")
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(etc)
    assert str(caught.value).splitlines() == [
        f"{etc}/appliances/a.yaml: is not a regular file",
        f"{etc}/appliances/b.yaml: No such file or directory",
    ]


def test_a_huge_file_is_not_read_to_its_end(etc: Path) -> None:
    with (etc / "appliances/a.yaml").open("wb") as file:
        file.truncate(1 << 40)
    [content] = read_configuration(etc).appliances.values()
    assert len(content) == MAX_BYTES + 1


def test_files_for_a_guest(etc: Path) -> None:
    dns = etc / "config/dns"
    (dns / "nsd.conf").write_text("server:")
    (dns / "zones/example.test").write_text("$ORIGIN")
    (dns / "zones/empty").touch()
    (dns / "link").symlink_to("zones/example.test")
    assert read_appliance_files(dns) == {
        "link": b"$ORIGIN",
        "nsd.conf": b"server:",
        "zones/empty": b"",
        "zones/example.test": b"$ORIGIN",
    }
    assert read_appliance_files(etc / "config/web") == {}


@pytest.mark.parametrize("target", ["/etc/shadow", "../web/key", "zones/../../web/key"])
def test_no_link_leads_out_of_the_directory(etc: Path, target: str) -> None:
    (etc / "config/web").mkdir()
    (etc / "config/web/key").write_text("secret")
    (etc / "config/dns/link").symlink_to(target)
    with pytest.raises(ConfigurationError) as caught:
        read_appliance_files(etc / "config/dns")
    assert (
        str(caught.value) == f"{etc}/config/dns/link: leads out of the appliance's configuration directory"
    )


def test_a_link_to_a_directory_is_not_passed_over_in_silence(etc: Path) -> None:
    (etc / "config/dns/outside").symlink_to("/etc")
    (etc / "config/dns/inside").symlink_to("zones")
    with pytest.raises(ConfigurationError) as caught:
        read_appliance_files(etc / "config/dns")
    assert str(caught.value).splitlines() == [
        f"{etc}/config/dns/inside: is a link to a directory",
        f"{etc}/config/dns/outside: leads out of the appliance's configuration directory",
    ]


def test_a_link_to_the_directory_itself_does_not_go_round(etc: Path) -> None:
    (etc / "config/dns/zones/up").symlink_to("..")
    with pytest.raises(ConfigurationError, match="is a link to a directory"):
        read_appliance_files(etc / "config/dns")


def test_what_is_no_file_is_passed_over(etc: Path) -> None:
    os.mkfifo(etc / "config/dns/fifo")
    (etc / "config/dns/.#nsd.conf").symlink_to("editor@host.123")
    assert read_appliance_files(etc / "config/dns") == {}


def test_all_files_together_have_a_limit(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "MAX_APPLIANCE_FILES_BYTES", 2 << 20)
    dns = etc / "config/dns"
    (dns / "a").write_bytes(bytes(1 << 20))
    (dns / "b").write_bytes(bytes(1 << 20))
    assert len(read_appliance_files(dns)) == 2
    (dns / "c").write_bytes(b"x")
    with pytest.raises(ConfigurationError) as caught:
        read_appliance_files(dns)
    assert str(caught.value) == f"{dns}: more than 2 MiB of configuration files"


def test_a_file_that_is_too_large_is_not_read(etc: Path) -> None:
    with (etc / "config/dns/huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match="more than 16 MiB"):
        read_appliance_files(etc / "config/dns")
