"""What a run of the reconciler is to bring about: a plan, made from what the administrator has written, and
from what stays in its place. Called in the reconciler's thread; changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from agent.core.planner import Gathered, Planner
from agent.model.errors import ApplianceError, ConfigurationError, Problem
from agent.model.generation import Generation
from agent.plan.generations import Course
from agent.plan.host import AppliancePlan, HostPlan


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
    and `target` its plan. `courses` is what becomes of that, by appliance; those that are busy have none.

    `problems` are what appliances ask for in vain, and have not although it is written.
    """

    written: Gathered
    gathered: Gathered
    target: HostPlan
    plan: HostPlan
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
    written = planner.gather(kept=kept)
    if anew:
        planner.clear_failures(written)
    target, problems = planner.plan(written, now.plan.assignments)
    planner.check_volumes(target)
    courses, staying = dict[str, Course](), dict[str, Generation]()
    for name, new in target.appliances.items():
        if name in now.busy:
            if now.gathered and name in now.plan.appliances:
                staying[name] = now.gathered.generation(name)
            continue
        courses[name] = Course.TAKE
        if has := planner.in_force(name, but=new.inputs.generation):
            old = now.plan.appliances.get(name) or planner.plan_generation(
                written, name, has, now.plan.assignments
            )
            courses[name] = planner.course_of(
                name, old, new, running=name in now.running, applying=applying, retry=retry
            )
            if courses[name] is not Course.TAKE:
                staying[name] = has
    gathered, plan = written, target
    if staying:
        gathered = _mixed(written, staying)
        plan, more = planner.plan(gathered, now.plan.assignments)
        problems = (*problems, *more, *planner.why_held(courses))
    plan, problems = _spare_busy(now, target, plan, tuple(dict.fromkeys(problems)))
    return Aim(written, gathered, target, plan, courses, problems)


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
    now: Now, target: HostPlan, plan: HostPlan, problems: tuple[str, ...]
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
        if target.appliances.get(name) != busy[name]
    ]
    told = (problem for problem in problems if problem.partition(": ")[0] not in busy)
    appliances = dict(sorted({**plan.appliances, **busy}.items()))
    return replace(plan, appliances=appliances), (*told, *later)
