"""The whole plan: everything the host is to have for a configuration. Pure; agent.core.reconcile brings it about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from agent.model.appliance import Appliance
from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.network import Network, Port
from agent.plan.cpio import archive
from agent.plan.dropin import render_drop_in
from agent.plan.guest import boot_text, guest_files
from agent.plan.launch import kernel_arguments, render_launch_plan, render_refusal, runtime_directory
from agent.plan.placement import place
from agent.plan.ports import allocate, plan_ports


@dataclass(frozen=True, slots=True)
class GuestInputs:
    """What one appliance's plan is made from beside its settings; `refusal` says why it cannot run, or ''.

    `configuration` holds the administrator's files by relative path, `local_time` a TZif file.
    """

    image: Image | None
    refusal: str
    configuration: Mapping[str, bytes]
    local_time: bytes
    data_volume: str


@dataclass(frozen=True, slots=True)
class AppliancePlan:
    """One appliance on the host. `guest_archive` follows the runtime in the initrd at `initrd`."""

    appliance: Appliance
    image: Image | None
    ports: tuple[Port, ...]
    core: int
    data_bytes: int
    drop_in: str
    launch: str
    initrd: str
    guest_archive: bytes


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Networks by name and appliances by name, with the assignments that are to be remembered."""

    networks: Mapping[str, Network]
    appliances: Mapping[str, AppliancePlan]
    assignments: Assignments


def plan_host(
    configuration: Configuration,
    inputs: Mapping[str, GuestInputs],
    *,
    host: HostFacts,
    previous: Assignments,
    runtime_digest: str,
) -> HostPlan:
    """Plan everything. `runtime_digest` identifies the guest runtime, so that a new one makes a new initrd."""
    leases = allocate(configuration, previous)
    ports = plan_ports(configuration, leases, machine_id=host.machine_id)
    cores = place(configuration.appliances, previous.cores, configuration.agent.cores or host.cores)
    plans = {
        name: _plan_appliance(
            appliance, inputs[name], ports[name], core=cores[name], host=host, runtime_digest=runtime_digest
        )
        for name, appliance in configuration.appliances.items()
    }
    return HostPlan(configuration.networks, plans, Assignments(addresses=leases, cores=cores))


def _plan_appliance(
    appliance: Appliance,
    inputs: GuestInputs,
    ports: tuple[Port, ...],
    *,
    core: int,
    host: HostFacts,
    runtime_digest: str,
) -> AppliancePlan:
    image = inputs.image
    memory_bytes = appliance.memory_bytes or (image.manifest.requests.memory_bytes if image else 0)
    has_data = image is not None and image.manifest.data is not None
    data_volume = inputs.data_volume if has_data else ""
    guest_archive = b""
    initrd = ""
    if image and not inputs.refusal:
        boot = boot_text(appliance, image.manifest, ports, host.nameservers)
        guest_archive = archive(guest_files(boot, inputs.configuration, inputs.local_time))
        initrd = _initrd_path(appliance.name, runtime_digest, guest_archive)
        launch = render_launch_plan(
            appliance,
            image,
            ports,
            kernel_arguments(
                appliance,
                image,
                ports,
                memory_bytes=memory_bytes,
                initrd=initrd,
                data_volume=data_volume,
                loops_per_jiffy=host.loops_per_jiffy,
            ),
        )
    else:
        launch = render_refusal(inputs.refusal or "There is no image for it.")
    return AppliancePlan(
        appliance=appliance,
        image=image,
        ports=ports,
        core=core,
        data_bytes=appliance.data_bytes or (DEFAULT_DATA_BYTES if has_data else 0),
        drop_in=render_drop_in(
            appliance,
            image,
            ports,
            core=core,
            memory_bytes=memory_bytes,
            data_volume=data_volume,
            host=host,
        ),
        launch=launch,
        initrd=initrd,
        guest_archive=guest_archive,
    )


DEFAULT_DATA_BYTES = 256 << 20


def _initrd_path(name: str, runtime_digest: str, guest_archive: bytes) -> str:
    """Named by its content: the launch plan that names it is switched by one rename, and both belong together."""
    digest = hashlib.sha256(runtime_digest.encode() + guest_archive).hexdigest()[:16]
    return f"{runtime_directory(name)}/initrd-{digest}"
