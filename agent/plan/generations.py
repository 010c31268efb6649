"""What becomes of a configuration that was written anew. Pure; agent.core.reconcile goes by it.

    written ──apply──► on trial ──► in force
                          └───────► held: what was in force stays

A guest that serves gets another configuration only by a swap (agent.plan.swap): linted, tried, watched, and
taken back where it fails. What nobody would notice is in force at once, and so is the first configuration of
an appliance, which has nothing to go back to.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from agent.model.swap import ApplianceState
from agent.plan.host import AppliancePlan


class Course(StrEnum):
    """What is done with the configuration of one appliance."""

    TAKE = "take"
    """It is in force from now on."""
    TRY = "try"
    """What was in force stays; the new one is put on trial."""
    WAIT = "wait"
    """What was in force stays, until somebody applies the new one."""
    HOLD = "hold"
    """What was in force stays, for the new one was found wanting."""


def course_of(
    state: ApplianceState,
    old: AppliancePlan | None,
    new: AppliancePlan,
    *,
    running: bool,
    applying: bool,
    retry: bool,
) -> Course:
    """What to do with the configuration of `new`, where `old` is what the appliance has now, if known.

    `applying` is whether somebody asked for it, and `retry` whether also for what failed before; otherwise
    an agent is taking over, and leaves those alone that serve.
    """
    wanted = new.inputs.generation
    if not state.generation or wanted == state.generation:
        return Course.TAKE
    if state.swap:
        return Course.WAIT  # it ends first
    held = state.held if state.held and state.held.generation == wanted else None
    if held and held.for_good and not retry:
        return Course.HOLD
    if not applying and (running or held):
        return Course.WAIT
    if old is None or not old.can_start or not differs(old, new):
        return Course.TAKE
    if not new.can_start:
        return Course.HOLD if running else Course.TAKE
    return Course.TRY


def differs(old: AppliancePlan, new: AppliancePlan) -> bool:
    """Whether a guest would notice which of the two it was started by."""
    return (old.launch, old.drop_in) != (new.launch, new.drop_in)


def can_reload(old: AppliancePlan, new: AppliancePlan) -> bool:
    """Whether a running guest of `old` becomes one of `new` by nothing but other configuration files, and
    its image knows how to take them."""
    if new.image is None or not new.image.manifest.service.reloads or not old.can_start:
        return False
    inputs = replace(new.inputs, configuration=old.inputs.configuration, generation=old.inputs.generation)
    return (
        inputs == old.inputs
        and new.data_bytes == old.data_bytes
        and new.boot == old.boot
        and new.drop_in == old.drop_in
        and new.launch == old.launch.replace(old.initrd, new.initrd)
    )
