"""Whose probes count, and where they go."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.config.tree import read_tree
from agent.model.assignments import Assignments
from agent.model.image import Image
from agent.model.probe import PingProbe, Probe, TcpProbe
from agent.plan.host import AppliancePlan, plan_host
from agent.plan.probes import address_of, probes_of
from tests.fakes.samples import sample_facts, sample_files, sample_image, sample_inputs

OF_THE_IMAGE = (TcpProbe(53),)


def planned(text: str, *, image: Image, networks: dict[str, str] | None = None) -> AppliancePlan:
    plan = plan_host(
        read_tree(sample_files({"dns": text}, networks=networks)),
        {"dns": sample_inputs(image)},
        host=sample_facts(),
        previous=Assignments(),
        runtime_digest="runtime",
    )
    return plan.appliances["dns"]


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ("{interval: 1s}", OF_THE_IMAGE),
        ("{probe: ping}", (PingProbe(),)),
        ("{probe: none}", ()),
    ],
)
def test_the_administrators_probes_go_before_the_images(health: str, expected: tuple[Probe, ...]) -> None:
    image = sample_image(probes=OF_THE_IMAGE)
    assert probes_of(planned(f"image: dns-nsd\nhealth: {health}\n", image=image)) == expected


def test_without_any_there_are_none() -> None:
    plan = planned("image: dns-nsd\n", image=sample_image())
    assert probes_of(plan) == probes_of(replace(plan, inputs=replace(plan.inputs, image=None))) == ()


def test_probes_change_neither_the_unit_nor_the_guest() -> None:
    plain, probed = (
        planned(f"image: dns-nsd\n{health}", image=sample_image())
        for health in ("", "health: {probe: [ping, {dns: {name: example.test}}]}\n")
    )
    assert (plain.drop_in, plain.launch, plain.guest_archive) == (
        probed.drop_in,
        probed.launch,
        probed.guest_archive,
    )


def test_the_first_address_is_asked() -> None:
    networks = {
        "default": "subnets: [10.88.0.0/24, 'fd00:88::/64']\n",
        "lan": "subnets: ['fd00:89::/64']\n",
    }
    text = "image: dns-nsd\nnetwork: [{name: default, address: 'fd00:88::53'}, lan]\n"
    plan = planned(text, image=sample_image(), networks=networks)
    assert address_of(plan) == ip_address("10.88.0.2")
    assert address_of(
        planned("image: dns-nsd\nnetwork: lan\n", image=sample_image(), networks=networks)
    ) == (ip_address("fd00:89::2"))


def test_without_a_network_nobody_can_be_asked() -> None:
    assert address_of(planned("image: dns-nsd\nnetwork: []\n", image=sample_image())) is None
