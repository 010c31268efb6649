"""What becomes of a configuration that was written anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.config.tree import read_tree
from agent.model.assignments import Assignments
from agent.model.errors import ApplianceError, Problem
from agent.model.generation import Held
from agent.model.image import Digest, Service
from agent.model.swap import ApplianceState, ImageTitle, Phase, Swap
from agent.plan.generations import Course, can_reload, course_of, differs
from agent.plan.host import AppliancePlan, HostPlan, plan_host, plan_one
from tests.fakes.samples import sample_facts, sample_files, sample_image, sample_inputs

RELOADS = sample_image(service=Service(exec=("/usr/sbin/nsd",), reload_signal="HUP"))
TITLE = ImageTitle(Digest.of(b"image"), "dns-nsd:4.6")
SWAP = Swap(1, Phase.ROLLBACK, TITLE, TITLE, "old", "new", "dns-nsd", "dns-nsd", True, 1.0, 1)
STATE = ApplianceState(generation="old")
TAKE, TRY, WAIT, HOLD = Course


def plan(settings: str = "", generation: str = "new", **inputs: Any) -> AppliancePlan:
    configuration = read_tree(sample_files({"dns": f"image: dns-nsd\n{settings}"}))
    given = sample_inputs(**{"image": RELOADS, "generation": generation, **inputs})
    facts = sample_facts()
    host = plan_host(
        configuration, {"dns": given}, host=facts, previous=Assignments(), runtime_digest="runtime"
    )
    return host.appliances["dns"]


OLD = plan(generation="old", configuration={"zone": b"old"})
FILES = plan(configuration={"zone": b"new"})
MEMORY = plan("memory: 64M")
UNSEEN = plan("update: {keep: 2}", configuration={"zone": b"old"})
UNFIT = plan(refusal="there is no image for it", image=None)


def held(*, for_good: bool) -> ApplianceState:
    return replace(STATE, held=Held("new", "it is sick", for_good=for_good))


@pytest.mark.parametrize(
    ("state", "old", "new", "applied", "stopped", "taken_over"),
    [
        # What there is nothing to go back to, or nothing to tell apart.
        (ApplianceState(), None, FILES, TAKE, TAKE, TAKE),
        (replace(STATE, generation="new"), OLD, FILES, TAKE, TAKE, TAKE),
        (STATE, OLD, UNSEEN, TAKE, TAKE, WAIT),
        (STATE, None, FILES, TAKE, TAKE, WAIT),
        (STATE, UNFIT, FILES, TAKE, TAKE, WAIT),
        # What a guest would notice.
        (STATE, OLD, FILES, TRY, TRY, WAIT),
        (STATE, OLD, MEMORY, TRY, TRY, WAIT),
        # What could not start must not end what does.
        (STATE, OLD, UNFIT, HOLD, TAKE, WAIT),
        # What failed before.
        (held(for_good=True), OLD, FILES, HOLD, HOLD, HOLD),
        (held(for_good=False), OLD, FILES, TRY, TRY, WAIT),
        (replace(held(for_good=True), held=Held("other", "", for_good=True)), OLD, FILES, TRY, TRY, WAIT),
        # What is being tried.
        (replace(STATE, swap=SWAP), OLD, FILES, WAIT, WAIT, WAIT),
    ],
)
def test_the_course(
    state: ApplianceState,
    old: AppliancePlan | None,
    new: AppliancePlan,
    applied: Course,
    stopped: Course,
    taken_over: Course,
) -> None:
    """Of a guest that runs while somebody applies, of one that does not, and of one that runs when an agent
    takes over."""
    assert course_of(state, old, new, running=True, applying=True, retry=False) is applied
    assert course_of(state, old, new, running=False, applying=True, retry=False) is stopped
    assert course_of(state, old, new, running=True, applying=False, retry=False) is taken_over


def test_what_is_asked_for_once_more() -> None:
    asked = course_of(held(for_good=True), OLD, FILES, running=True, applying=True, retry=True)
    assert asked is Course.TRY


@pytest.mark.parametrize("for_good", [False, True])
def test_no_agent_tries_again_by_itself_what_failed(*, for_good: bool) -> None:
    state = held(for_good=for_good)
    assert course_of(state, OLD, FILES, running=False, applying=False, retry=False) in {HOLD, WAIT}


def test_after_a_boot_what_is_new_is_tried() -> None:
    assert course_of(STATE, OLD, FILES, running=False, applying=False, retry=False) is Course.TRY


def test_what_a_guest_notices() -> None:
    assert [differs(OLD, new) for new in (OLD, UNSEEN, FILES, MEMORY)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("new", "reloads"),
    [
        (FILES, True),
        (MEMORY, False),
        (plan("timezone: Asia/Tokyo", local_time=b"JST"), False),
        (plan("health: {interval: 5s}"), False),
        (plan(image=sample_image("dns-nsd", "5")), False),
        (UNFIT, False),
    ],
)
def test_what_can_be_handed_to_a_running_guest(new: AppliancePlan, *, reloads: bool) -> None:
    assert can_reload(OLD, new) is reloads


def test_an_image_that_cannot_reload() -> None:
    old, new = (plan(image=sample_image(), configuration={"zone": zone}) for zone in (b"old", b"new"))
    assert not can_reload(old, new)


# --- one appliance among others


def host_of(settings: dict[str, str], previous: Assignments) -> HostPlan:
    return plan_host(
        read_tree(sample_files(settings)),
        {name: sample_inputs() for name in settings},
        host=sample_facts(),
        previous=previous,
        runtime_digest="runtime",
    )


def test_one_is_planned_as_with_all() -> None:
    settings = {"dns": "image: dns-nsd\n", "web": "image: dns-nsd\nmemory: 64M\n"}
    host = host_of(settings, Assignments())
    configuration = read_tree(sample_files(settings))
    for name, expected in host.appliances.items():
        one = plan_one(
            configuration,
            name,
            sample_inputs(),
            host=sample_facts(),
            previous=host.assignments,
            runtime_digest="runtime",
        )
        assert one == expected


def test_an_address_that_another_has_is_not_taken_from_it() -> None:
    host = host_of({"dns": "image: dns-nsd\n", "web": "image: dns-nsd\n"}, Assignments())
    taken = host.assignments.addresses["default"]["dns"][0]
    wanting = f"image: dns-nsd\nnetwork: {{name: default, address: {taken}}}\n"
    with pytest.raises(ApplianceError, match=f"web: it wants {taken}, which “dns” has") as caught:
        plan_one(
            read_tree(sample_files({"dns": "image: dns-nsd\n", "web": wanting})),
            "web",
            sample_inputs(),
            host=sample_facts(),
            previous=host.assignments,
            runtime_digest="runtime",
        )
    assert caught.value.problem is Problem.IN_USE


def test_assignments_follow_one_appliance() -> None:
    host = host_of({"dns": "image: dns-nsd\n", "web": "image: dns-nsd\n"}, Assignments())
    before, port = host.assignments, host.appliances["web"].ports[0]
    after = before.with_appliance("dns", {"other": port.addresses}, 1)
    assert after.addresses["default"] == {"web": before.addresses["default"]["web"]}
    assert (after.addresses["other"], after.cores["dns"]) == ({"dns": port.addresses}, 1)
    assert before.with_appliance("web", {"default": port.addresses}, before.cores["web"]) == before
