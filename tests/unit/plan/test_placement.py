"""Which core each guest runs on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.plan.placement import place

names = st.sets(st.text(alphabet="abcdef", min_size=1, max_size=3), max_size=12)
cores = st.lists(st.integers(0, 15), min_size=1, max_size=5, unique=True)


@given(names, cores)
def test_all_are_placed_and_evenly(appliances: set[str], available: list[int]) -> None:
    placed = place(appliances, {}, available)
    load = Counter(dict.fromkeys(available, 0))
    load.update(placed.values())
    assert placed.keys() == appliances
    assert load.keys() == set(available)
    assert max(load.values()) - min(load.values()) <= 1


@given(names, names, cores)
def test_who_has_a_core_keeps_it(before: set[str], after: set[str], available: list[int]) -> None:
    earlier = place(before, {}, available)
    later = place(after, earlier, available)
    assert all(later[name] == earlier[name] for name in before & after)
    assert later == place(after, later, available)


@given(names, cores, cores)
def test_a_core_that_is_gone_is_left(appliances: set[str], before: list[int], after: list[int]) -> None:
    placed = place(appliances, place(appliances, {}, before), after)
    assert set(placed.values()) <= set(after)


def test_newcomers_go_where_least_is() -> None:
    assert place({"a", "b", "new"}, {"a": 0, "b": 0}, (0, 1)) == {"a": 0, "b": 0, "new": 1}
    assert place({"a", "b"}, {}, (3, 1)) == {"a": 1, "b": 3}


def test_the_order_of_names_and_nothing_else_decides() -> None:
    assert place(["b", "a"], {}, (0, 1)) == place(["a", "b"], {}, (1, 0)) == {"a": 0, "b": 1}
