"""The throwaway guest that lints a configuration before anything is switched to it.

It is an instance of appliance@.service like an appliance, with its sandbox and user, without network, data
volume and life signs, and it ends after the image's `check`: `appliance@NAME.check.service`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.config.units import format_span
from agent.model.appliance import KERNEL
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.names import check_instance_of
from agent.plan.cpio import archive
from agent.plan.dropin import OVERHEAD_BYTES, START_MARGIN_S, add_kernel
from agent.plan.guest import check_text, guest_files
from agent.plan.host import AppliancePlan, initrd_path
from agent.plan.launch import kernel_arguments, render_launch_plan
from agent.plan.unit import UnitFile


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What the instance is made of; removed when it has ended."""

    appliance: str
    instance: str
    drop_in: str
    launch: str
    initrd: str
    guest_archive: bytes


def plan_check(plan: AppliancePlan, image: Image, *, host: HostFacts, runtime_digest: str) -> CheckPlan:
    """Lint the configuration of `plan` with the check of `image`."""
    appliance, instance = plan.appliance, check_instance_of(plan.appliance.name)
    files = guest_files(
        check_text(appliance, image.manifest), plan.inputs.configuration, plan.inputs.local_time
    )
    content = archive(files)
    initrd = initrd_path(instance, content, runtime_digest=runtime_digest)
    arguments = kernel_arguments(
        appliance,
        image,
        (),
        instance=instance,
        memory_bytes=plan.memory_bytes,
        initrd=initrd,
        data_volume="",
        loops_per_jiffy=host.loops_per_jiffy,
    )
    return CheckPlan(
        appliance=appliance.name,
        instance=instance,
        drop_in=_render_drop_in(plan, image, host=host),
        launch=render_launch_plan(appliance, image, (), arguments),
        initrd=initrd,
        guest_archive=content,
    )


def _render_drop_in(plan: AppliancePlan, image: Image, *, host: HostFacts) -> str:
    appliance = plan.appliance
    unit = UnitFile(f"Written by appliance-agent for one check of the configuration of {appliance.name}.")
    unit.add("Unit", "Description", f"Configuration check of {appliance.name} ({image.manifest.title})")
    for key, value in {
        "Type": "oneshot",
        "Restart": "no",
        "WatchdogSec": "0",
        "TimeoutStartSec": format_span(image.manifest.service.ready_timeout_s + START_MARGIN_S),
        "User": appliance.user,
        "Group": appliance.user,
        "CPUAffinity": str(plan.core),
        "MemoryMax": str(plan.memory_bytes + OVERHEAD_BYTES),
        "SyslogIdentifier": appliance.name,
    }.items():
        unit.add("Service", key, value)
    if appliance.kernel != KERNEL:
        add_kernel(unit, appliance.kernel)
    unit.add("Service", "LogExtraFields", "")
    unit.add("Service", "LogExtraFields", f"APPLIANCE={appliance.name}")
    unit.add("Service", "LogExtraFields", f"APPLIANCE_IMAGE={image.manifest.reference}")
    if host.opens_files:
        unit.add("Service", "OpenFile", "/run/systemd/notify:notify")
    return unit.render()
