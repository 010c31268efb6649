"""The whole plan: everything the host is to have for a configuration. Pure; agent.core.reconcile brings it
about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.model.address import Address
from agent.model.appliance import Appliance
from agent.model.assignments import Assignments
from agent.model.configuration import Configuration
from agent.model.errors import ApplianceError, Problem
from agent.model.host import HostFacts
from agent.model.image import Image
from agent.model.network import Bridge, Network, Port
from agent.plan.cpio import archive
from agent.plan.dropin import render_drop_in
from agent.plan.guest import boot_text, guest_files
from agent.plan.launch import kernel_arguments, render_launch_plan, render_refusal, runtime_directory
from agent.plan.placement import place
from agent.plan.ports import allocate, plan_bridges, plan_ports

DEFAULT_DATA_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class GuestInputs:
    """What one appliance's plan is made from beside its settings; `refusal` says why it cannot run, or ''.

    `configuration` holds the administrator's files by relative path, `local_time` a TZif file;
    `generation` is the one that these files and the settings are.
    """

    image: Image | None
    refusal: str
    configuration: Mapping[str, bytes]
    local_time: bytes
    data_volume: str
    generation: str = ""


@dataclass(frozen=True, slots=True)
class AppliancePlan:
    """One appliance on the host. `guest_archive` follows the runtime in the initrd at `initrd`; `boot` is
    the boot plan in it."""

    appliance: Appliance
    inputs: GuestInputs
    ports: tuple[Port, ...]
    core: int
    memory_bytes: int
    data_bytes: int
    drop_in: str
    launch: str
    initrd: str
    boot: str
    guest_archive: bytes

    @property
    def image(self) -> Image | None:
        """What it starts from; None where there is no such image."""
        return self.inputs.image

    @property
    def addresses(self) -> dict[str, tuple[Address, ...]]:
        """What it has in each network."""
        return {port.network.name: port.addresses for port in self.ports}

    @property
    def can_start(self) -> bool:
        """Whether its launch plan starts a guest, and does not refuse to."""
        return bool(self.initrd)


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Networks with the bridges they take, and appliances by name, with the assignments that are to be
    remembered."""

    networks: Sequence[Network]
    bridges: Sequence[Bridge]
    appliances: Mapping[str, AppliancePlan]
    assignments: Assignments
    names_on_host: bool = False


def plan_host(
    configuration: Configuration,
    inputs: Mapping[str, GuestInputs],
    *,
    host: HostFacts,
    previous: Assignments,
    runtime_digest: str,
) -> HostPlan:
    """Plan everything. `runtime_digest` identifies the guest runtime, so that a new one makes a new
    initrd."""
    leases = allocate(configuration, previous)
    ports = plan_ports(configuration, leases, machine_id=host.machine_id)
    cores = place(configuration.appliances, previous.cores, configuration.agent.cores or host.cores)
    plans = {
        name: plan_appliance(
            appliance, inputs[name], ports[name], core=cores[name], host=host, runtime_digest=runtime_digest
        )
        for name, appliance in configuration.appliances.items()
    }
    networks = list(configuration.networks.values())
    subnets = {network.name: network.subnets for network in networks if network.automatic}
    return HostPlan(
        networks,
        plan_bridges(networks, machine_id=host.machine_id),
        plans,
        Assignments(addresses=leases, cores=cores, subnets=subnets),
        names_on_host=configuration.agent.host_names,
    )


def plan_one(
    configuration: Configuration,
    name: str,
    inputs: GuestInputs,
    *,
    host: HostFacts,
    previous: Assignments,
    runtime_digest: str,
) -> AppliancePlan:
    """Plan one appliance as `plan_host` would.

    ApplianceError IN_USE where that would take an address from another one.
    """
    leases = allocate(configuration, previous)
    for network, held in previous.addresses.items():
        for other, addresses in held.items():
            if other != name and leases.get(network, {}).get(other, addresses) != addresses:
                raise ApplianceError(
                    f"{name}: it wants {', '.join(map(str, addresses))}, which “{other}” has.",
                    problem=Problem.IN_USE,
                    remedy="Choose another address for one of them.",
                )
    cores = place(configuration.appliances, previous.cores, configuration.agent.cores or host.cores)
    return plan_appliance(
        configuration.appliances[name],
        inputs,
        plan_ports(configuration, leases, machine_id=host.machine_id)[name],
        core=cores[name],
        host=host,
        runtime_digest=runtime_digest,
    )


def plan_appliance(
    appliance: Appliance,
    inputs: GuestInputs,
    ports: tuple[Port, ...],
    *,
    core: int,
    host: HostFacts,
    runtime_digest: str,
) -> AppliancePlan:
    """Plan one appliance, which has its addresses and its core."""
    manifest = inputs.image.manifest if inputs.image else None
    data_volume = inputs.data_volume if manifest and manifest.data else ""
    memory_bytes = appliance.memory_bytes or (manifest.requests.memory_bytes if manifest else 0)
    guest = _plan_guest(
        appliance,
        inputs,
        ports,
        memory_bytes=memory_bytes,
        data_volume=data_volume,
        host=host,
        runtime_digest=runtime_digest,
    )
    return AppliancePlan(
        appliance=appliance,
        inputs=inputs,
        ports=ports,
        core=core,
        memory_bytes=memory_bytes,
        data_bytes=(appliance.data_bytes or DEFAULT_DATA_BYTES) if data_volume else 0,
        drop_in=render_drop_in(
            appliance,
            inputs.image,
            ports,
            core=core,
            memory_bytes=memory_bytes,
            data_volume=data_volume,
            host=host,
        ),
        launch=guest.launch,
        initrd=guest.initrd,
        boot=guest.boot,
        guest_archive=guest.archive,
    )


@dataclass(frozen=True, slots=True)
class _Guest:
    launch: str
    initrd: str = ""
    boot: str = ""
    archive: bytes = b""


def _plan_guest(
    appliance: Appliance,
    inputs: GuestInputs,
    ports: tuple[Port, ...],
    *,
    memory_bytes: int,
    data_volume: str,
    host: HostFacts,
    runtime_digest: str,
) -> _Guest:
    if inputs.refusal or not inputs.image:
        return _Guest(render_refusal(inputs.refusal or "there is no image for it"))
    boot = boot_text(appliance, inputs.image.manifest, ports, host.nameservers)
    content = archive(guest_files(boot, inputs.configuration, inputs.local_time))
    initrd = initrd_path(appliance.name, content, runtime_digest=runtime_digest)
    arguments = kernel_arguments(
        appliance,
        inputs.image,
        ports,
        instance=appliance.name,
        memory_bytes=memory_bytes,
        initrd=initrd,
        data_volume=data_volume,
        loops_per_jiffy=host.loops_per_jiffy,
        names=f"{runtime_directory(appliance.name)}/names" if ports else "",
    )
    return _Guest(render_launch_plan(appliance, inputs.image, ports, arguments), initrd, boot, content)


def with_room(
    plan: AppliancePlan, *, memory_bytes: int, stop_timeout_s: float, host: HostFacts
) -> AppliancePlan:
    """The plan with unit settings for so much memory and so much time to stop."""
    image = plan.image
    if image:
        service = replace(image.manifest.service, stop_timeout_s=stop_timeout_s)
        image = replace(image, manifest=replace(image.manifest, service=service))
    drop_in = render_drop_in(
        plan.appliance,
        image,
        plan.ports,
        core=plan.core,
        memory_bytes=memory_bytes,
        data_volume=plan.inputs.data_volume if image and image.manifest.data else "",
        host=host,
    )
    return replace(plan, drop_in=drop_in)


def initrd_path(instance: str, content: bytes, *, runtime_digest: str) -> str:
    """Where the initrd with this content lies. It is named by the content, for the launch plan that names
    it is switched by one rename."""
    digest = hashlib.sha256(runtime_digest.encode() + content).hexdigest()[:16]
    return f"{runtime_directory(instance)}/initrd-{digest}"
