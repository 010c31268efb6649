"""The reconciler on a host in memory: which image an appliance gets, and what becomes of its data volume."""

from __future__ import annotations

import pytest

from agent.model.errors import ConfigurationError, HostError, ImageError
from agent.model.image import DataFormat
from tests.fakes.samples import sample_image
from tests.fakes.world import World
from tests.unit.core.test_reconcile import NOTHING, apply, configure

# --- images


async def test_a_missing_image_is_that_appliance_s_problem_alone(world: World) -> None:
    configure(world, "dns")
    configure(world, "web", image="web-nginx")
    outcome = await apply(world)
    assert outcome.problems == ("web: There is no image web-nginx.",)
    assert "refuse There is no image web-nginx." in world.files.owned["web"].launch
    assert "refuse" not in world.files.owned["dns"].launch
    assert (await apply(world)).changes == ()


async def test_an_image_that_is_imported_later_ends_the_refusal(world: World) -> None:
    configure(world, "web", image="web-nginx")
    await apply(world)
    world.images.images.append(sample_image("web-nginx", "1.26"))
    outcome = await apply(world)
    assert outcome.problems == ()
    assert "refuse" not in world.files.owned["web"].launch


@pytest.mark.parametrize("image", ["dns-nsd:9", "dns-bind", f"sha256:{'0' * 64}"])
async def test_a_running_appliance_is_not_stopped_for_an_image_that_is_not_there(
    world: World, image: str
) -> None:
    await world.run("dns", "web")
    configure(world, "dns", image=image)
    outcome = await apply(world)
    assert world.journal.take() == []
    assert len(outcome.problems) == 1
    assert outcome.problems[0].startswith("dns: There is no image ")


async def test_it_keeps_the_image_it_has_and_takes_every_other_change(world: World) -> None:
    await world.run("dns")
    configure(world, "dns", image="dns-bind", memory="64M")
    outcome = await apply(world)
    assert outcome.problems == ("dns: There is no image dns-bind.",)
    assert world.journal.take()[-1] == "start dns"
    assert world.files.current_image("dns") == sample_image().digest


async def test_one_whose_image_vanished_runs_on_and_cannot_start_again(world: World) -> None:
    await world.run("dns")
    world.images.images.clear()
    outcome = await apply(world)
    assert outcome.problems == ("dns: There is no image dns-nsd.",)
    assert world.journal.take() == ["write dns launch", "write dns drop_in", "daemon-reload"]
    assert world.reconciler.restart_pending("dns")
    del world.links.links["ap-dns"]
    await world.reconciler.restore_links()
    assert world.journal.take() == ["link ap-dns"]


async def test_neither_is_one_whose_kernel_is_not_fit(world: World) -> None:
    await world.run("dns")
    world.files.unfit["/opt/linux"] = "kernel /opt/linux is not supported"
    configure(world, "dns", kernel="/opt/linux")
    outcome = await apply(world)
    assert outcome.problems == ("dns: kernel /opt/linux is not supported",)
    assert "restart dns" not in world.journal.take()


async def test_a_newer_image_is_not_taken_unasked(world: World) -> None:
    await world.run("dns")
    world.images.images.append(sample_image("dns-nsd", "4.7-1"))
    assert await apply(world) == NOTHING
    configure(world, "dns", image="dns-nsd:4.7")
    await apply(world)
    assert world.journal.take() == [
        "write dns drop_in",
        "daemon-reload",
        "stop dns",
        "write dns image",
        "write dns launch",
        "start dns",
    ]


async def test_an_image_that_vanished_from_the_store_gives_way_to_another(world: World) -> None:
    await world.run("dns")
    world.images.images = [sample_image("dns-nsd", "4.7-1")]
    outcome = await apply(world)
    assert outcome.problems == ()
    assert world.files.current_image("dns") == sample_image("dns-nsd", "4.7-1").digest


async def test_a_store_that_cannot_be_read_is_a_problem_and_no_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(world, "dns")

    def refuse(_reference: object) -> None:
        raise ImageError("The manifest is damaged.")

    monkeypatch.setattr(world.images, "resolve", refuse)
    assert (await apply(world)).problems == ("dns: The manifest is damaged.",)


# --- data volumes


async def test_growth_stops_and_starts_a_running_guest(world: World) -> None:
    await world.run("dns", "web")
    configure(world, "dns", data="512M")
    outcome = await apply(world)
    assert world.journal.take() == ["stop dns", "grow dns", "start dns"]
    assert outcome.changes == ("dns: grow its data volume",)
    assert world.files.volumes["dns"] == 512 << 20


async def test_a_guest_that_was_stopped_for_growth_is_not_restarted_once_more(world: World) -> None:
    await world.run("dns")
    configure(world, "dns", data="512M", memory="64M")
    await apply(world)
    assert world.journal.take() == [
        "write dns drop_in",
        "daemon-reload",
        "stop dns",
        "grow dns",
        "write dns launch",
        "start dns",
    ]


async def test_growth_of_what_does_not_run(world: World) -> None:
    await world.run("dns")
    await world.units.stop("dns")
    configure(world, "dns", data="512M")
    world.journal.take()
    await apply(world)
    assert world.journal.take() == ["grow dns"]


async def test_an_agent_that_starts_lets_a_running_guest_keep_its_volume(world: World) -> None:
    await world.run("dns")
    configure(world, "dns", data="512M")
    world.boot()
    await apply(world, restart=False)
    assert world.journal.take() == []
    await apply(world)
    assert world.journal.take() == ["stop dns", "grow dns", "start dns"]


async def test_shrinking_is_refused(world: World) -> None:
    await world.run("dns")
    configure(world, "dns", data="4M")
    with pytest.raises(ConfigurationError, match="making it smaller is not supported"):
        await apply(world)


async def test_growth_that_fails_leaves_the_guest_running_and_stops_no_other(world: World) -> None:
    await world.run("dns", "web")
    world.journal.failing["grow dns"] = HostError("resize2fs failed.")
    configure(world, "dns", data="512M")
    configure(world, "web", memory="64M")
    outcome = await apply(world)
    assert world.units.status["dns"].active_state == "active"
    assert outcome.problems == ("dns: grow its data volume failed: resize2fs failed.",)
    assert world.journal.take()[-1] == "start web"


async def test_an_image_without_data_grows_nothing(world: World) -> None:
    world.images.images = [sample_image(data=None), sample_image("dns-nsd", "5", data=DataFormat("/data"))]
    configure(world, "dns", image="dns-nsd:4.6", data="1G")
    await apply(world)
    assert world.files.volumes == {}
