"""What the agent asks an appliance from outside, and where: chosen from its settings and its image. Pure."""

from __future__ import annotations

from agent.model.address import Address
from agent.model.probe import Probe
from agent.plan.host import AppliancePlan


def question_of(plan: AppliancePlan) -> tuple[tuple[Probe, ...], Address] | None:
    """What is asked, and where; None where nothing is, or nowhere."""
    probes, address = probes_of(plan), address_of(plan)
    return (probes, address) if probes and address is not None else None


def probes_of(plan: AppliancePlan) -> tuple[Probe, ...]:
    """The administrator's probes, else the image's; none where the administrator wants none."""
    if plan.appliance.probes is not None:
        return plan.appliance.probes
    return plan.image.manifest.probes if plan.image else ()


def address_of(plan: AppliancePlan) -> Address | None:
    """Where an appliance is asked: the first address of its first network that has one."""
    return next((address for port in plan.ports for address in port.addresses), None)
