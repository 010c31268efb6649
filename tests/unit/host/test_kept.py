"""The last valid configuration survives the agent, bytes and all."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config.tree import ConfigurationFiles
from agent.host.kept import keep_configuration, kept_configuration

names = st.text(min_size=1, max_size=8) | st.just("zone-\udcff")
contents = st.dictionaries(names, st.binary(max_size=20), max_size=3)
# The directory is the same for all examples, and each writes the file anew.
same_directory = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_directory
@given(contents, contents, contents, st.dictionaries(names, contents, max_size=2))
def test_what_is_kept_is_read_back(
    tmp_path: Path,
    agent: dict[str, bytes],
    networks: dict[str, bytes],
    appliances: dict[str, bytes],
    given_: dict[str, dict[str, bytes]],
) -> None:
    path, files = tmp_path / "configuration.json", ConfigurationFiles(agent, networks, appliances)
    keep_configuration(path, files, given_)
    found = kept_configuration(path)
    assert found == (files, given_)
    # Fragments apply in this order.
    assert list(found[0].agent) == list(agent)
    assert keep_configuration(path, files, given_) is False


def test_nobody_else_may_read_what_guests_are_given(tmp_path: Path) -> None:
    path = tmp_path / "configuration.json"
    assert keep_configuration(path, ConfigurationFiles({}, {}, {}), {"dns": {"key": b"secret"}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


VALID: dict[str, object] = {"version": 1, "agent": {}, "networks": {}, "appliances": {}, "files": {}}
WRONG: tuple[dict[str, object], ...] = (
    {"version": 2},
    {"agent": 5},
    {"agent": {"a": "€"}},
    {"files": []},
    {"files": {"dns": 5}},
)
BROKEN = (
    *("", "{", "null", "[]", "[" * 100_000, "\xff"),
    *(json.dumps({key: value for key, value in VALID.items() if key != missing}) for missing in VALID),
    *(json.dumps({**VALID, **wrong}) for wrong in WRONG),
)


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_said_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "configuration.json"
    path.write_text(content, "latin-1" if content == "\xff" else "utf-8")
    assert kept_configuration(path) is None
    assert "ignoring" in caplog.text


def test_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert kept_configuration(tmp_path / "none") is None
    assert not caplog.records
