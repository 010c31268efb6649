"""What is remembered of an appliance survives the agent as it was, or is an error: nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.states import States
from agent.model.errors import HostError, Problem
from agent.model.generation import Held
from agent.model.image import Digest
from agent.model.paths import Paths
from agent.model.swap import ApplianceState, HistoryEntry, ImageTitle, Phase, Quarantined, Result, Swap

texts = st.text(max_size=20)
digests = st.binary(min_size=1, max_size=8).map(Digest.of)
titles = st.builds(ImageTitle, digests, texts)
numbers = st.integers(0, 2**53)
spans = st.floats(0, 1e6, allow_nan=False)
swaps = st.builds(
    Swap,
    number=numbers,
    phase=st.sampled_from(Phase),
    old=titles,
    new=titles,
    old_generation=texts,
    new_generation=texts,
    old_wanted=texts,
    new_wanted=texts,
    running=st.booleans(),
    soak_s=spans,
    started_at_us=numbers,
    automatic=st.booleans(),
    back=st.booleans(),
    snapshot=texts,
    restore=texts,
    old_format=numbers,
    baseline=texts,
    downtime_ms=spans,
    reason=texts,
    to_old_data=st.booleans(),
    blame=st.booleans(),
)
entries = st.builds(
    HistoryEntry,
    number=numbers,
    old=titles,
    new=titles,
    result=st.sampled_from(Result),
    reason=texts,
    started_at_us=numbers,
    ended_at_us=numbers,
    downtime_ms=spans,
    snapshot=texts,
    data_format=numbers,
    old_generation=texts,
    new_generation=texts,
)
states = st.builds(
    ApplianceState,
    image=st.none() | digests,
    wanted=texts,
    generation=texts,
    held=st.none() | st.builds(Held, texts, texts, st.booleans()),
    data_format=numbers,
    swaps=numbers,
    swap=st.none() | swaps,
    failure=texts,
    history=st.lists(entries, max_size=3).map(tuple),
    quarantine=st.lists(st.builds(Quarantined, titles, texts, numbers), max_size=2).map(tuple),
)

# The directory is the same for all examples, and each writes the file anew.
same_directory = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def kept(tmp_path: Path) -> States:
    return States(Paths(tmp_path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = Paths(tmp_path).appliance_record("dns")
    path.parent.mkdir(parents=True)
    return path


@same_directory
@given(states)
def test_what_is_written_is_read_back(kept: States, state: ApplianceState) -> None:
    kept.write("dns", state)
    assert kept.read("dns") == state
    assert kept.write("dns", state) is False


def test_nothing_is_remembered_where_there_is_no_file(kept: States, tmp_path: Path) -> None:
    assert kept.read("dns") == ApplianceState()
    assert kept.names() == []
    assert list(tmp_path.iterdir()) == []


def test_of_whom_something_is_remembered(kept: States, tmp_path: Path) -> None:
    for name in ("web", "dns"):
        kept.write(name, ApplianceState())
    Paths(tmp_path).appliance_state("ntp").mkdir()
    assert kept.names() == ["dns", "web"]


GOOD: dict[str, Any] = {
    "version": 1,
    "image": None,
    "wanted": "",
    "generation": "",
    "held": None,
    "data_format": 0,
    "swaps": 0,
    "swap": None,
    "failure": "",
    "history": [],
    "quarantine": [],
    "work": None,
}
TITLE = {"digest": f"sha256:{'0' * 64}", "reference": "dns-nsd:4.7"}
BROKEN: list[Any] = [
    None,
    [],
    7,
    {},
    {**GOOD, "version": 2},
    {**GOOD, "image": "sha256:0"},
    {**GOOD, "image": 7},
    {**GOOD, "data_format": "x"},
    {**GOOD, "swap": {"phase": "soak"}},
    {**GOOD, "swap": {"phase": "dream", "old": TITLE, "new": TITLE}},
    {**GOOD, "history": 7},
    {**GOOD, "history": [{"old": TITLE, "new": TITLE, "result": "committed", "wish": 1}]},
    {**GOOD, "quarantine": [{"image": TITLE}]},
    {**GOOD, "quarantine": [{"image": {"digest": "x", "reference": ""}, "reason": "", "since_us": 0}]},
]


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, "\x00", *map(json.dumps, BROKEN)], ids=range(len(BROKEN) + 4)
)
def test_a_file_that_cannot_be_understood(kept: States, path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(HostError, match="state cannot be read") as caught:
        kept.read("dns")
    assert caught.value.problem is Problem.NOT_SUPPORTED
    assert path.read_text() == content


def test_the_least_that_is_understood(kept: States, path: Path) -> None:
    path.write_text(json.dumps(GOOD))
    assert kept.read("dns") == ApplianceState()


def test_bytes_that_are_no_text(kept: States, path: Path) -> None:
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(HostError, match="state cannot be read"):
        kept.read("dns")


@same_directory
@given(st.data())
def test_any_damage_is_found_or_harmless(kept: States, data: st.DataObject) -> None:
    """One value of a good file becomes another one: what is read then can be written and read again."""
    kept.write("dns", data.draw(states))
    [path] = kept._paths.state.glob("appliances/dns/state")
    content = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(content)))
    content[key] = data.draw(st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=2))
    path.write_text(json.dumps(content))
    try:
        state = kept.read("dns")
    except HostError:
        return
    kept.write("dns", state)
    assert kept.read("dns") == state
