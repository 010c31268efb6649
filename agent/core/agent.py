"""The agent's state and verbs in one place: what the faces show and call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from agent.core.data import DataKeeper
from agent.core.networks import Networks
from agent.core.operations import Operation, Operations
from agent.core.reconcile import Outcome, Reconciler
from agent.core.swap import Swapper
from agent.core.swap_steps import Request
from agent.core.updates import Updates
from agent.core.watch import Watch
from agent.model.errors import ApplianceError, ConfigurationError, Problem
from agent.model.generation import Generation
from agent.model.health import HealthState, UnitStatus
from agent.model.image import ImageReference
from agent.model.names import APPLIANCE_NAME
from agent.model.swap import ApplianceState
from agent.model.update import RunEntry, Update
from agent.plan.host import AppliancePlan
from agent.util.journal import Event, log_event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """One appliance as it is to be, and as it is."""

    plan: AppliancePlan
    status: UnitStatus
    health: HealthState
    restart_pending: bool


class Agent:
    """Owns the reconciler, the watch, swaps and updates; `data` has the verbs about data, `networks` what
    there is to see of those. `on_applied` is called after the set of appliances may have changed."""

    def __init__(
        self,
        reconciler: Reconciler,
        watch: Watch,
        swapper: Swapper,
        operations: Operations,
        updates: Updates,
        *,
        data: DataKeeper,
        networks: Networks,
        on_applied: Callable[[], None],
    ) -> None:
        self._reconciler = reconciler
        self._watch = watch
        self._swapper = swapper
        self._updates = updates
        self._on_applied = on_applied
        self._due: Mapping[str, Generation] = {}
        self.operations = operations
        self.data = data
        self.networks = networks

    def appliances(self) -> list[str]:
        """Names of all configured appliances."""
        return list(self._reconciler.plan.appliances)

    def view(self, name: str) -> View:
        """Everything known of one of `appliances()`."""
        return View(
            plan=self._reconciler.plan.appliances[name],
            status=self._watch.status(name),
            health=self._watch.health(name),
            restart_pending=self._reconciler.restart_pending(name),
        )

    async def check(self, *, retry: bool = False) -> Outcome:
        """What `apply` would do."""
        return await self._reconciler.check(retry=retry)

    async def apply(self, *, retry: bool = False) -> tuple[Outcome, list[Operation]]:
        """Make the host as configured, and start guests anew where that takes a new start; with `retry`,
        also as it failed before.

        Configurations that a guest would notice are put on trial: the operations that do so.
        """
        if self._swapper.watches() and await self._is_valid():
            await self._swapper.hurry()
        outcome = await self._apply(restart=True, retry=retry)
        operations, problems = await self._begin_trials(outcome.trials)
        return replace(outcome, problems=(*outcome.problems, *problems)), operations

    async def _is_valid(self) -> bool:
        """Whether there is a configuration that could be applied, but for operations in its way."""
        try:
            await self._reconciler.check()
        except ConfigurationError:
            return False
        except ApplianceError as error:
            return error.problem is Problem.BUSY
        return True

    async def _begin_trials(self, trials: Mapping[str, Generation]) -> tuple[list[Operation], list[str]]:
        """Put configurations on trial; the operations, and why others were not begun."""
        operations, problems = [], []
        for name, generation in trials.items():
            try:
                operations.append(await self._swapper.configure(name, generation))
            except ApplianceError as error:
                # Somebody else may have asked for the same.
                if operation := await self._swapper.trial_of(name, generation):
                    operations.append(operation)
                    continue
                problems.append(f"{name}: {str(error).removeprefix(f'{name}: ')}")
        self._report_problems(problems)
        return operations, problems

    async def start(self) -> None:
        """Take over a host as it is found: no guest starts anew, and no error keeps the agent from watching.

        Where the configuration was broken since it was last applied, that one counts until it is mended.
        """
        await self._reconciler.tidy()
        await self._swapper.settle()
        await self.data.settle()
        try:
            await self._apply_what_is_valid()
        except ApplianceError as error:
            _log.error("The configuration could not be applied: %s", error)

    async def _apply_what_is_valid(self) -> None:
        try:
            outcome = await self._apply(restart=False)
        except ConfigurationError:
            _log.warning("The last valid configuration stays in force.")
            outcome = await self._apply(restart=False, kept=True)
        self._due = outcome.trials

    async def resume(self) -> None:
        """Start anew the guests that lost their tap while no agent ran, and then take up swaps and
        restores, which that would disturb; after this agent is ready."""
        await self._reconciler.reconnect()
        await self._swapper.resume()
        await self.data.resume()
        await self._begin_trials(self._due)

    async def swap(self, name: str, reference: ImageReference | None, request: Request) -> Operation:
        """Begin to replace an appliance's image; see Swapper.swap."""
        return await self._swapper.swap(name, reference, request)

    async def rollback(self, name: str, *, with_data: bool) -> Operation:
        """Begin to go back to what was before the last swap; see Swapper.rollback."""
        return await self._swapper.rollback(name, with_data=with_data)

    async def state(self, name: str) -> ApplianceState:
        """What is remembered of an appliance; ApplianceError where there is none of that name."""
        return await self._swapper.state(name)

    async def clear_quarantine(self, name: str, image: str) -> int:
        """Let images be tried again by themselves; how many. `image` is a digest, '' for all."""
        return await self._swapper.clear_quarantine(name, image)

    async def check_updates(self, names: Collection[str]) -> list[Update]:
        """How appliances stand to newer images; see Updates.check."""
        return await self._updates.check(names)

    def update(self, names: Collection[str], *, retry: bool) -> Operation:
        """Begin a run of updates; see Updates.begin."""
        return self._updates.begin(names, retry=retry)

    def run_entries(self, number: int) -> list[RunEntry]:
        """What has become of each appliance in a run; see Updates.entries."""
        return self._updates.entries(number)

    async def restore_links(self) -> bool:
        """Mend what somebody else did to our links and rules; whether the rules are in force."""
        try:
            return await self._reconciler.restore_links()
        except ApplianceError as error:
            _log.error("The network could not be restored: %s", error)
            return False

    async def _apply(self, *, restart: bool, retry: bool = False, kept: bool = False) -> Outcome:
        try:
            outcome = await self._reconciler.apply(restart=restart, retry=retry, kept=kept)
        except ConfigurationError as error:
            log_event(Event.REFUSED, f"Configuration refused, nothing was changed:\n{error}")
            raise
        finally:
            self._on_applied()
        if outcome.changes:
            log_event(Event.APPLIED, f"Configuration applied, {len(outcome.changes)} changes.")
        self._report_problems(outcome.problems)
        return outcome

    def _report_problems(self, problems: Iterable[str]) -> None:
        for problem in problems:
            name, _, reason = problem.partition(": ")
            if APPLIANCE_NAME.fullmatch(name):
                log_event(Event.REFUSED, f"Appliance {name}: {reason}", appliance=name, reason=reason)
            else:
                log_event(Event.REFUSED, f"Not everything was applied: {problem}", reason=problem)
