"""Names on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.names import BEGIN, END, NameFiles, with_names
from agent.model.paths import Paths

HOSTS = "10.0.0.2 dns.example.test dns\n10.0.0.3 web\n"
OWN = "127.0.0.1 localhost\n::1 localhost # web is not a name here\n"
PART = f"{BEGIN}\n{HOSTS}{END}\n"


def test_our_part_comes_last_and_goes_again() -> None:
    assert with_names(OWN, HOSTS, own="host") == OWN + PART
    assert with_names(OWN + PART, HOSTS, own="host") == OWN + PART
    assert with_names(OWN + PART, "", own="host") == OWN


def test_it_stays_where_it_is() -> None:
    after = "192.0.2.9 later\n"
    changed = with_names(OWN + PART + after, "10.0.0.9 mail\n", own="host")
    assert changed == f"{OWN}{BEGIN}\n10.0.0.9 mail\n{END}\n{after}"


@pytest.mark.parametrize(("text", "own"), [("192.0.2.1 web", "host"), ("", "web")])
def test_a_name_that_means_somebody_already_is_left_to_them(text: str, own: str) -> None:
    assert "10.0.0.3" not in with_names(f"{OWN}{text}\n", HOSTS, own=own)


def test_a_part_that_has_lost_its_end() -> None:
    assert with_names(f"{OWN}{BEGIN}\n{HOSTS}", HOSTS, own="host") == OWN + PART


_LINES = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=5)


@given(_LINES, _LINES)
def test_what_is_not_ours_is_never_changed(before: list[str], after: list[str]) -> None:
    text = "".join(f"{line}\n" for line in before) + PART + "".join(f"{line}\n" for line in after)
    assert with_names(text, "", own="host").splitlines() == [*before, *after]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    hosts = tmp_path / "etc/hosts"
    hosts.write_text(OWN)
    hosts.chmod(0o640)
    names = NameFiles(Paths(tmp_path))
    [change] = names.plan_host(HOSTS)
    change.apply()
    assert hosts.read_text() == OWN + PART
    assert hosts.stat().st_mode & 0o777 == 0o640
    assert names.plan_host(HOSTS) == []


def test_a_host_without_such_a_file(tmp_path: Path) -> None:
    assert NameFiles(Paths(tmp_path)).plan_host(HOSTS) == []
