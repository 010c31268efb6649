"""Configurations on disk, and what they are known by."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.generations import Generations
from agent.model.errors import HostError, Problem
from agent.model.generation import Generation
from agent.model.paths import Paths

ONE = Generation(b"image: dns-nsd\n", {"zones/a.zone": b"\xff\x00"})
generations = st.builds(Generation, st.binary(), st.dictionaries(st.text(), st.binary(), max_size=4))


@pytest.fixture
def kept(tmp_path: Path) -> Generations:
    return Generations(Paths(tmp_path))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generations.filter(lambda entry: all(name.isprintable() for name in entry.files)))
def test_what_is_written_is_read_back(kept: Generations, generation: Generation) -> None:
    kept.write("dns", generation)
    assert kept.read("dns", generation.id) == generation
    assert kept.write("dns", generation) is False


@given(generations, generations)
def test_each_content_is_one_generation(one: Generation, other: Generation) -> None:
    assert (one.id == other.id) == (one == other)


def test_nobody_else_reads_what_may_be_secret(kept: Generations, tmp_path: Path) -> None:
    kept.write("dns", ONE)
    directory = Paths(tmp_path).generations("dns")
    assert (directory.stat().st_mode & 0o777, (directory / ONE.id).stat().st_mode & 0o777) == (0o700, 0o600)


def test_what_was_never_kept(kept: Generations) -> None:
    with pytest.raises(HostError) as caught:
        kept.read("dns", ONE.id)
    assert caught.value.problem is Problem.NOT_FOUND


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: text.replace("dns-nsd", "dns-bad"),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda _text: "[]",
    ],
)
def test_what_was_damaged_is_not_used(kept: Generations, tmp_path: Path, damage: object) -> None:
    kept.write("dns", ONE)
    path = Paths(tmp_path).generations("dns") / ONE.id
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    with pytest.raises(HostError, match="cannot be read"):
        kept.read("dns", ONE.id)


def test_what_nobody_goes_back_to_is_removed(kept: Generations) -> None:
    other = Generation(b"image: dns-knot\n", {})
    for generation in (ONE, other):
        kept.write("dns", generation)
    kept.remove("dns", but={other.id})
    kept.remove("web", but=())
    assert kept.read("dns", other.id) == other
    with pytest.raises(HostError):
        kept.read("dns", ONE.id)
