"""What a run of the reconciler is to bring about: a plan, made from what the administrator has written, and
from what stays in its place. Called in the reconciler's thread; changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from agent.core.planner import Gathered, Planner
from agent.model.errors import ApplianceError, ConfigurationError, Problem
from agent.model.generation import Generation
from agent.plan.generations import Course
from agent.plan.host import AppliancePlan, HostPlan

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Now:
    """How things are: the plan in force with what it was made from, if anything, appliances with an
    operation under way, and those with a guest."""

    plan: HostPlan
    gathered: Gathered | None
    busy: Collection[str]
    running: Collection[str]


@dataclass(frozen=True, slots=True)
class Aim:
    """How things are to be: `plan`, made from `gathered`. What the administrator's files say is `written`,
    and `target` its plan. `before` has the plans of what is in force, as far as they are known; `courses` is
    what becomes of what is written, by appliance; those that are busy have none.

    `problems` are what appliances ask for in vain, and have not although it is written.
    """

    written: Gathered
    gathered: Gathered
    target: HostPlan
    plan: HostPlan
    before: Mapping[str, AppliancePlan]
    courses: Mapping[str, Course]
    problems: tuple[str, ...]

    @property
    def trials(self) -> Mapping[str, Generation]:
        """Configurations that are to be put on trial."""
        tried = (name for name, course in self.courses.items() if course is Course.TRY)
        return {name: self.written.generation(name) for name in tried}


def make_aim(
    planner: Planner,
    now: Now,
    *,
    applying: bool,
    anew: bool = False,
    retry: bool = False,
    kept: bool = False,
) -> Aim:
    """ConfigurationError where what is written is not valid.

    `applying` and `retry` are as in agent.plan.generations. With `anew`, appliances may start again that
    were given up; with `kept`, the configuration is the one that was last applied.
    """
    written = planner.gather(now.plan.assignments, kept=kept)
    if anew:
        planner.clear_failures(written)
    target, problems = planner.plan(written, now.plan.assignments)
    planner.check_volumes(target)
    has = _in_force(planner, now, target)
    before = {**_planned_before(planner, now, written, has), **now.plan.appliances}
    courses = {
        name: planner.course_of(
            name,
            before.get(name),
            new,
            running=name in now.running,
            applying=applying,
            retry=retry,
        )
        if name in has
        else Course.TAKE
        for name, new in target.appliances.items()
        if name not in now.busy
    }
    staying = {name: has[name] for name in has if courses.get(name) is not Course.TAKE}
    gathered, plan = written, target
    if staying:
        try:
            gathered = _mixed(written, staying)
        except ConfigurationError:
            if applying:
                raise
            # Without a plan there would be no appliance at all.
            _log.warning("What is in force does not go together with what is written, which counts instead.")
            courses = dict.fromkeys(courses, Course.TAKE)
        else:
            plan, more = planner.plan(gathered, now.plan.assignments)
            problems = (*problems, *more, *planner.why_held(courses))
    plan, problems = _spare_busy(planner, now, target, plan, tuple(dict.fromkeys(problems)))
    return Aim(written, gathered, target, plan, before, courses, problems)


def _in_force(planner: Planner, now: Now, target: HostPlan) -> dict[str, Generation]:
    """The configurations that appliances have, where these differ from what is written."""
    found = {}
    for name, new in target.appliances.items():
        if name in now.busy:
            has = now.gathered.generation(name) if now.gathered and name in now.plan.appliances else None
        else:
            has = planner.in_force(name, but=new.inputs.generation)
        if has:
            found[name] = has
    return found


def _planned_before(
    planner: Planner, now: Now, written: Gathered, has: Mapping[str, Generation]
) -> Mapping[str, AppliancePlan]:
    """How appliances would be planned as they are, of which an agent that starts has no plan yet."""
    if set(has) <= set(now.plan.appliances):
        return {}
    try:
        plan, _problems = planner.plan(written.with_generations(has), now.plan.assignments)
    except ApplianceError:
        return {}
    return plan.appliances


def _mixed(written: Gathered, staying: Mapping[str, Generation]) -> Gathered:
    """What is written, but for appliances that stay as they are."""
    try:
        return written.with_generations(staying)
    except ConfigurationError as error:
        names = ", ".join(sorted(staying))
        reason = f"; as long as the change of {names} has not proven itself"
        findings = [replace(finding, message=f"{finding.message}{reason}") for finding in error.findings]
        raise ConfigurationError(findings) from error


def _spare_busy(
    planner: Planner, now: Now, target: HostPlan, plan: HostPlan, problems: tuple[str, ...]
) -> tuple[HostPlan, tuple[str, ...]]:
    """Leave appliances as they are of which an operation is under way."""
    busy: dict[str, AppliancePlan] = {
        name: now.plan.appliances[name] for name in now.busy if name in now.plan.appliances
    }
    if not busy:
        return plan, problems
    if removed := sorted(busy.keys() - plan.appliances.keys()):
        # Its addresses would be free for others while it still has them.
        raise ApplianceError(
            f"An operation is under way on {', '.join(removed)}, which the configuration no longer has.",
            problem=Problem.BUSY,
            remedy="Apply once more when it has ended.",
        )
    later = [
        f"{name}: an operation is under way; apply once more when it has ended"
        for name in sorted(busy)
        if not _is_coming(planner, target.appliances.get(name), busy[name])
    ]
    told = (problem for problem in problems if problem.partition(": ")[0] not in busy)
    appliances = dict(sorted({**plan.appliances, **busy}.items()))
    return replace(plan, appliances=appliances), (*told, *later)


def _is_coming(planner: Planner, wanted: AppliancePlan | None, has: AppliancePlan) -> bool:
    """Whether an appliance is planned as it is to be, or is just being brought there."""
    return wanted == has or (wanted is not None and planner.is_on_trial(wanted))
