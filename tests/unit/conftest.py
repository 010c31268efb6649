"""What holds for this tier: coroutines are tests too, and property tests leave no files in the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis.configuration
import pytest

from tests.fakes.aio import nothing_left_behind, run_coroutine_test

hypothesis.settings.register_profile(
    "unit",
    # How long an example takes says nothing on a busy machine.
    deadline=None,
    database=None,
    # The same examples in every run where a failure has to be reproduced by somebody else.
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
hypothesis.settings.load_profile("unit")


def pytest_configure(config: pytest.Config) -> None:
    """What hypothesis computes of Unicode once is kept with pytest's own cache."""
    if cache := getattr(config, "cache", None):
        hypothesis.configuration.set_hypothesis_home_dir(cache.mkdir("hypothesis"))


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    return run_coroutine_test(pyfuncitem)
