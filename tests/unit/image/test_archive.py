"""Where packages come from, and what apt says of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent.image import archive
from agent.image.archive import Deb, cache_directory, host_sources
from agent.model.errors import ImageError

KEYRING = Path("/keys.gpg")


def test_sites_and_pockets_are_those_of_the_host() -> None:
    targets = """\
https://example.test/debian|bookworm|Debian
https://example.test/debian|bookworm-updates|Debian
https://security.example.test/debian-security|bookworm-security|Debian
https://example.test/debian|bookworm-backports|Debian
https://example.test/debian|bookworm|Debian
https://other.example.test/|stable|Somebody
"""
    assert host_sources(targets, "trixie", KEYRING) == [
        "deb [signed-by=/keys.gpg] https://example.test/debian trixie main",
        "deb [signed-by=/keys.gpg] https://security.example.test/debian-security trixie-security main",
        "deb [signed-by=/keys.gpg] https://example.test/debian trixie-updates main",
    ]


def test_a_host_without_debian() -> None:
    assert host_sources("https://example.test/ubuntu|noble|Ubuntu\n", "trixie", KEYRING) == []
    assert host_sources("", "trixie", KEYRING) == []


def test_what_apt_lists() -> None:
    line = "'https://example.test/libcap2_2.66%2bx_amd64.deb' libcap2_1%3a2.66+x_amd64.deb 28988 SHA256:00ff"
    assert archive._parse_listing(line) == Deb("libcap2_1%3a2.66+x_amd64.deb", "00ff")


@pytest.mark.parametrize(
    "line",
    [
        "'https://example.test/a.deb' a_1_amd64.deb 5 MD5Sum:00ff",
        "'https://example.test/a.deb' ../a_1_amd64.deb 5 SHA256:00ff",
        "'https://example.test/a.deb'",
    ],
)
def test_what_apt_must_not_list(line: str) -> None:
    with pytest.raises(ImageError, match="apt named a package in an unknown way"):
        archive._parse_listing(line)


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("fetched", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "fetched/a.deb").write_bytes(b"content")
    return tmp_path / "fetched", tmp_path / "cache"


def test_a_package_is_kept_if_it_is_what_was_promised(directories: tuple[Path, Path]) -> None:
    fetched, cache = directories
    kept = archive._keep(Deb("a.deb", hashlib.sha256(b"content").hexdigest()), fetched, cache)
    assert kept.read_bytes() == b"content"
    assert list(cache.iterdir()) == [kept]


def test_a_package_that_was_tampered_with_leaves_the_cache(directories: tuple[Path, Path]) -> None:
    fetched, cache = directories
    (cache / "a.deb").write_bytes(b"content")
    with pytest.raises(ImageError, match=r"a\.deb is not what the archive promised"):
        archive._keep(Deb("a.deb", "00ff"), fetched, cache)
    assert list(cache.iterdir()) == []


def test_the_reason_is_apts_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "I: x\nE: Unable to locate package nds\nE: apt-get install nds failed\nE: mmdebstrap failed to run\n"
    )
    assert archive._reason(log) == "Unable to locate package nds"
    assert archive._reason(tmp_path / "nothing") == ""


def test_the_cache_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_directory() == Path("/caches/appliance/debs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cache_directory() == Path("/home/me/.cache/appliance/debs")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cache_directory() == Path("/var/cache/appliance/debs")
