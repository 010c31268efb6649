"""Gathers what the plan is made from (configuration, images, the administrator's files) and has it made.

Blocking; agent.core.reconcile calls it in its thread, and brings the plan about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath

from agent.config.tree import ConfigurationFiles, read_tree
from agent.core.world import Files, GenerationKeeper, Images, StateKeeper
from agent.model.address import Subnet
from agent.model.appliance import Appliance
from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, ConfigurationError, Finding, HostError, ImageError, Problem
from agent.model.generation import Generation
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.network import Network
from agent.model.swap import ApplianceState
from agent.plan.check import CheckPlan, plan_check
from agent.plan.generations import Course, course_of
from agent.plan.host import (
    AppliancePlan,
    GuestInputs,
    HostPlan,
    plan_appliance,
    plan_host,
    plan_one,
    with_room,
)
from agent.plan.subnets import choose_subnets
from agent.plan.swap import why_unreadable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gathered:
    """A valid configuration with the files it was read from, and the administrator's files by appliance."""

    files: ConfigurationFiles
    configuration: Configuration
    contents: Mapping[str, Mapping[str, bytes]]

    def generation(self, name: str) -> Generation:
        """What is written for one appliance."""
        return Generation(self.files.appliances[self._path(name)], self.contents[name])

    def with_generations(self, generations: Mapping[str, Generation]) -> Gathered:
        """With other configurations of these; ConfigurationError where they do not go together."""
        if not generations:
            return self
        settings = {self._path(name): generation.settings for name, generation in generations.items()}
        files = replace(self.files, appliances={**self.files.appliances, **settings})
        contents = {name: generation.files for name, generation in generations.items()}
        return Gathered(files, read_tree(files, self._subnets), {**self.contents, **contents})

    def _subnets(self, networks: Mapping[str, Network]) -> dict[str, tuple[Subnet, ...]]:
        """Those that automatic networks have, which no appliance's settings change."""
        return {
            name: self.configuration.networks[name].subnets for name in networks if networks[name].automatic
        }

    def _path(self, name: str) -> str:
        for path in self.files.appliances:
            if PurePath(path).stem == name:
                return path
        raise ApplianceError(f"There is no appliance “{name}”.", problem=Problem.NOT_FOUND)


class Planner:
    """Makes plans; changes nothing but what is kept of them."""

    def __init__(
        self,
        *,
        facts: HostFacts,
        files: Files,
        images: Images,
        states: StateKeeper,
        generations: GenerationKeeper,
        routes: Callable[[], Collection[Subnet]],
    ) -> None:
        self._facts = facts
        self._routes = routes
        self._files = files
        self._images = images
        self._states = states
        self._generations = generations

    def gather(self, previous: Assignments, *, kept: bool = False) -> Gathered:
        """The configuration; with `kept`, as it was when it was last found valid. ConfigurationError where
        it is not valid."""
        last = self._files.kept_configuration() if kept else None
        files = last[0] if last else self._files.read_configuration()
        choose = partial(
            choose_subnets,
            previous=previous,
            machine_id=self._facts.machine_id,
            taken=self._routes,
            ipv6=self._facts.ipv6,
        )
        configuration = read_tree(files, choose)
        self._check_cores(configuration)
        contents = {
            name: last[1].get(name, {}) if last else self._files.read_appliance_files(name)
            for name in configuration.appliances
        }
        return Gathered(files, configuration, contents)

    def plan(self, gathered: Gathered, previous: Assignments) -> tuple[HostPlan, tuple[str, ...]]:
        """The plan, and what appliances ask for in vain."""
        problems: list[str] = []
        inputs = {name: self._inputs(gathered, name, problems) for name in gathered.configuration.appliances}
        plan = plan_host(
            gathered.configuration,
            inputs,
            host=self._facts,
            previous=previous,
            runtime_digest=self._files.runtime_digest,
        )
        return plan, tuple(problems)

    def in_force(self, name: str, *, but: str) -> Generation | None:
        """The configuration that an appliance has; None where nothing is known of one, or it is `but`."""
        try:
            generation = self._states.read(name).generation
            return self._generations.read(name, generation) if generation not in {"", but} else None
        except ApplianceError as error:
            _log.warning("%s: %s", name, error)
            return None

    def course_of(
        self,
        name: str,
        old: AppliancePlan | None,
        new: AppliancePlan,
        *,
        running: bool,
        applying: bool,
        retry: bool,
    ) -> Course:
        """What to do with what is written for an appliance; see agent.plan.generations."""
        state, _lost = self._state(name)
        return course_of(state, old, new, running=running, applying=applying, retry=retry)

    def is_on_trial(self, plan: AppliancePlan) -> bool:
        """Whether this configuration is what is being tried."""
        state, _lost = self._state(plan.appliance.name)
        return state.swap is not None and state.swap.new_generation == plan.inputs.generation

    def forget(self, names: Collection[str]) -> None:
        """Forget what configurations appliances had that are configured no more: who is configured under
        such a name again begins anew."""
        for name in names:
            keep_quietly(partial(self._forget, name))

    def _forget(self, name: str) -> None:
        state = self._states.read(name)
        if state.generation or state.held:
            self._states.write(name, replace(state, generation="", held=None))
        self._generations.remove(name, but=())

    def why_held(self, courses: Mapping[str, Course]) -> Iterator[str]:
        """Why configurations are not in force that were tried before."""
        for name, course in courses.items():
            state, _lost = self._state(name)
            if course is Course.HOLD and state.held:
                yield (
                    f"{name}: its configuration is not in force: {state.held.reason} "
                    "(`appliancectl apply --retry` tries it again)"
                )

    def plan_generation(
        self, gathered: Gathered, name: str, generation: Generation, previous: Assignments
    ) -> AppliancePlan:
        """The plan of an appliance as it would be with another configuration, among what the others have.

        ConfigurationError where that does not go together.
        """
        mixed = gathered.with_generations({name: generation})
        return plan_one(
            mixed.configuration,
            name,
            self._inputs(mixed, name, []),
            host=self._facts,
            previous=previous,
            runtime_digest=self._files.runtime_digest,
        )

    def read_generation(self, name: str, generation: str) -> Generation:
        """One that was kept; HostError where it was not."""
        return self._generations.read(name, generation)

    def with_image(self, plan: AppliancePlan, image: Image) -> AppliancePlan:
        """The plan of an appliance as it would be with another image."""
        return plan_appliance(
            plan.appliance,
            replace(plan.inputs, image=image, refusal=self._files.why_unfit(plan.appliance.kernel)),
            plan.ports,
            core=plan.core,
            host=self._facts,
            runtime_digest=self._files.runtime_digest,
        )

    def before(self, plan: AppliancePlan, old: AppliancePlan) -> AppliancePlan:
        """A plan with unit settings under which the guest of the old plan, too, can go on and stop in
        order: systemd applies them to a running unit at once."""
        memory_bytes = max(plan.memory_bytes, old.memory_bytes)
        stop_s = max(
            image.manifest.service.stop_timeout_s for image in (plan.image, old.image) if image is not None
        )
        return with_room(plan, memory_bytes=memory_bytes, stop_timeout_s=stop_s, host=self._facts)

    def check_with(self, plan: AppliancePlan, image: Image) -> CheckPlan:
        """How to lint the configuration of an appliance with the check of an image."""
        return plan_check(plan, image, host=self._facts, runtime_digest=self._files.runtime_digest)

    def keep_configuration(self, gathered: Gathered) -> None:
        """Keep a configuration that was found valid."""
        keep_quietly(partial(self._files.keep_configuration, gathered.files, gathered.contents))

    def keep_state(self, name: str, plan: AppliancePlan, generation: Generation) -> None:
        """Keep what follows from a plan that was brought about, for an appliance of which no swap is under
        way.

        A state whose file cannot be read was a problem already, and is left as it is.
        """
        keep_quietly(partial(self._keep_state, name, plan, generation))

    def _keep_state(self, name: str, plan: AppliancePlan, generation: Generation) -> None:
        """A choice counts until `image:` changes; whoever uses the data volume writes its own format."""
        state = after = self._states.read(name)
        if state.generation != generation.id:
            self._generations.write(name, generation)
            after = replace(after, generation=generation.id, held=None)
            former = (entry.old_generation for entry in state.history)
            self._generations.remove(name, but={generation.id, *former})
        if state.wanted != str(plan.appliance.image):
            after = replace(after, image=None, wanted="")
        if plan.data_bytes and plan.can_start and plan.image and plan.image.manifest.data:
            after = replace(after, data_format=plan.image.manifest.data.format)
        if after != state:
            self._states.write(name, after)

    def clear_failures(self, gathered: Gathered) -> None:
        """Let appliances start again whose swap could not be undone: somebody has looked after them."""
        for name in gathered.configuration.appliances:
            keep_quietly(partial(self._clear_failure, name))

    def _clear_failure(self, name: str) -> None:
        state = self._states.read(name)
        if state.failure:
            self._states.write(name, replace(state, failure=""))

    def _inputs(self, gathered: Gathered, name: str, problems: list[str]) -> GuestInputs:
        appliance = gathered.configuration.appliances[name]
        state, lost = self._state(appliance.name)
        image, missing = self._find_image(appliance, state)
        unfit = self._files.why_unfit(appliance.kernel) or lost or state.failure
        unfit = unfit or (why_unreadable(image.manifest, state.data_format) if image else "")
        if missing or unfit:
            problems.append(f"{appliance.name}: {missing or unfit}")
        return GuestInputs(
            image=image,
            refusal=unfit or ("" if image else missing),
            configuration=gathered.contents[name],
            local_time=self._local_time(appliance),
            data_volume=self._files.data_volume(appliance.name),
            generation=gathered.generation(name).id,
        )

    def _state(self, appliance: str) -> tuple[ApplianceState, str]:
        try:
            return self._states.read(appliance), ""
        except ApplianceError as error:
            return ApplianceState(), str(error)

    def _find_image(self, appliance: Appliance, state: ApplianceState) -> tuple[Image | None, str]:
        """The image it was swapped to, or has, as long as its reference may mean that one; else the newest
        that it may mean.

        Where there is none it keeps what it has, if anything; the second value then says what is missing.
        """
        current = self._current_image(appliance)
        if state.image and state.wanted == str(appliance.image):
            return self._chosen_image(state, current)
        if current and current.matches(appliance.image):
            return current, ""
        try:
            return self._images.resolve(appliance.image), ""
        except ImageError as error:
            return current, str(error)

    def _chosen_image(self, state: ApplianceState, current: Image | None) -> tuple[Image | None, str]:
        try:
            return (self._images.get(state.image) if state.image else current), ""
        except ImageError as error:
            return None, str(error)

    def _current_image(self, appliance: Appliance) -> Image | None:
        digest = self._files.current_image(appliance.name)
        try:
            return self._images.get(digest) if digest else None
        except ImageError as error:
            _log.warning("%s: %s", appliance.name, error)
            return None

    def _local_time(self, appliance: Appliance) -> bytes:
        content = self._files.read_time_zone(appliance.time_zone or self._facts.time_zone)
        if content is None and appliance.time_zone:
            raise _refused(appliance.name, f"timezone: there is no time zone {appliance.time_zone}")
        return content or b""

    def _check_cores(self, configuration: Configuration) -> None:
        for core in configuration.agent.cores:
            if core not in self._facts.cores:
                there = ", ".join(map(str, self._facts.cores))
                raise _refused("agent", f"cores: this host has no core {core}; it has {there}")

    def check_volumes(self, plan: HostPlan) -> None:
        """ConfigurationError where a data volume would have to shrink."""
        for name, appliance in plan.appliances.items():
            if appliance.appliance.data_bytes and self._files.would_shrink(appliance):
                raise _refused(
                    name, "data: the volume is larger already; making it smaller is not supported"
                )


def keep_quietly(write: Callable[[], object]) -> None:
    """Write what only helps at the next start: a full disk must not keep appliances from running now."""
    try:
        write()
    except HostError as error:
        _log.warning("%s, ignoring", error)


def _refused(appliance: str, message: str) -> ConfigurationError:
    return ConfigurationError([Finding(f"{appliance}.yaml", 0, 0, message)])
