"""An appliance's files on a host that lies below a temporary directory."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from agent.config.tree import read_tree
from agent.host import appliances
from agent.host.appliances import ApplianceFiles
from agent.model.assignments import Assignments
from agent.model.change import Change, Effect
from agent.model.paths import Paths
from agent.plan.check import CheckPlan, plan_check
from agent.plan.host import AppliancePlan, plan_host
from tests.fakes.samples import sample_facts, sample_files, sample_image, sample_inputs
from tests.unit.plan.reading import read_archives

RUNTIME = b"07070100 the runtime, padded"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = Paths(tmp_path)
    paths.guest_runtime.parent.mkdir(parents=True)
    paths.guest_runtime.write_bytes(RUNTIME)
    monkeypatch.setattr(appliances, "user_id", lambda _name: os.getuid())
    monkeypatch.setattr(appliances, "group_id", lambda _name: os.getgid())
    monkeypatch.setattr(os, "chown", lambda *_: None)

    def create(path: Path, *, size_bytes: int, group: int) -> None:
        assert group == os.getgid()
        with path.open("wb") as file:
            file.truncate(size_bytes)

    monkeypatch.setattr(appliances, "create_volume", create)
    return paths


@pytest.fixture
def files(paths: Paths) -> ApplianceFiles:
    return ApplianceFiles(paths)


def plan_of(
    name: str = "dns", *, memory: str = "32M", refusal: str = "", version: str = "4.6.1-1"
) -> AppliancePlan:
    configuration = read_tree(sample_files({name: yaml.safe_dump({"image": "dns-nsd", "memory": memory})}))
    inputs = sample_inputs(sample_image(version=version), refusal=refusal)
    plan = plan_host(
        configuration, {name: inputs}, host=sample_facts(), previous=Assignments(), runtime_digest="r"
    )
    return plan.appliances[name]


def apply(changes: list[Change]) -> list[str]:
    for change in changes:
        change.apply()
    return [change.text for change in changes]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_appliance_gets_everything_once(files: ApplianceFiles, paths: Paths) -> None:
    plan = plan_of()
    changes = files.plan(plan)
    assert apply(changes) == [
        "create its state directory",
        "create a data volume of 256M",
        f"use image dns-nsd 4.6.1-1 ({sample_image().digest.short})",
        "write its launch plan",
        "write its unit settings",
    ]
    assert [change.effect for change in changes][-2:] == [
        Effect.RESTART,
        Effect.RESTART | Effect.DAEMON_RELOAD,
    ]
    assert files.plan(plan) == []
    assert files.current_image("dns") == sample_image().digest
    assert files.known() == {"dns"}
    run = paths.appliance_runtime("dns")
    assert (run / "launch").read_text("utf-8") == plan.launch
    assert (mode(run / "launch"), mode(run), mode(paths.appliance_state("dns"))) == (0o640, 0o755, 0o750)
    initrd = (run / Path(plan.initrd).name).read_bytes()
    assert initrd.startswith(RUNTIME)
    assert read_archives(initrd[len(RUNTIME) :])[-1].name == "appliance/localtime"
    drop_in = paths.drop_in_directory("dns") / "50-appliance.conf"
    assert (drop_in.read_text("utf-8"), mode(drop_in)) == (plan.drop_in, 0o644)


def test_only_what_differs_is_written(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    before = (paths.drop_in_directory("dns") / "50-appliance.conf").stat().st_ino
    other = plan_of(version="4.7-1")
    texts = apply(files.plan(other))
    assert texts[1:] == ["write its launch plan", "write its unit settings"]
    assert texts[0].startswith("use image dns-nsd 4.7-1")
    assert (paths.drop_in_directory("dns") / "50-appliance.conf").stat().st_ino != before
    assert files.current_image("dns") == sample_image(version="4.7-1").digest


def test_an_old_initrd_goes_with_the_plan_that_named_it(files: ApplianceFiles, paths: Paths) -> None:
    first, second = plan_of(), replace(plan_of(), launch="other", initrd="/run/appliance/dns/initrd-2")
    apply(files.plan(first))
    (paths.appliance_runtime("dns") / ".launch.abc.tmp").touch()
    apply(files.plan(second))
    assert sorted(path.name for path in paths.appliance_runtime("dns").iterdir()) == ["initrd-2", "launch"]


@pytest.mark.parametrize("lost", ["launch", "initrd-*"])
def test_what_somebody_took_away_is_written_again(files: ApplianceFiles, paths: Paths, lost: str) -> None:
    apply(files.plan(plan_of()))
    [path] = paths.appliance_runtime("dns").glob(lost)
    path.unlink()
    assert apply(files.plan(plan_of())) == ["write its launch plan"]
    assert path.exists()


def test_a_drop_in_that_was_edited_is_put_back(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    drop_in = paths.drop_in_directory("dns") / "50-appliance.conf"
    drop_in.write_text("[Service]\nExecStart=/bin/sh\n")
    assert apply(files.plan(plan_of())) == ["write its unit settings"]
    assert "ExecStart" not in drop_in.read_text("utf-8")


def test_what_cannot_start_has_a_plan_without_an_initrd(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    apply(files.plan(plan_of(refusal="no image")))
    assert [path.name for path in paths.appliance_runtime("dns").iterdir()] == ["launch"]
    assert "refuse no image" in (paths.appliance_runtime("dns") / "launch").read_text("utf-8")
    assert files.plan(plan_of(refusal="no image")) == []


def test_removal_keeps_data_and_what_the_administrator_put_beside(
    files: ApplianceFiles, paths: Paths
) -> None:
    apply(files.plan(plan_of()))
    override = paths.drop_in_directory("dns") / "60-local.conf"
    override.touch()
    assert apply(files.plan_removal("dns")) == ["remove its launch plan", "remove its unit settings"]
    assert files.known() == set()
    assert override.exists()
    assert paths.data_volume("dns").exists()
    assert list(paths.appliance_runtime("dns").iterdir()) == []


def test_strangers_in_our_directories_are_no_appliances(files: ApplianceFiles, paths: Paths) -> None:
    (paths.runtime / "memory").mkdir(parents=True)
    (paths.runtime / "No_Name").mkdir()
    (paths.runtime / "No_Name/launch").touch()
    (paths.units / "appliance@x y.service.d").mkdir(parents=True)
    (paths.units / "appliance@x y.service.d/50-appliance.conf").touch()
    (paths.units / "appliance@web.service.d").mkdir()
    (paths.units / "appliance@web.service.d/override.conf").touch()
    assert files.known() == set()


def test_the_time_of_the_last_plan(files: ApplianceFiles, paths: Paths) -> None:
    assert files.planned_at_us("dns") == 0
    apply(files.plan(plan_of()))
    os.utime(paths.appliance_runtime("dns") / "launch", ns=(0, 5_000_000))
    os.utime(paths.drop_in_directory("dns") / "50-appliance.conf", ns=(0, 7_000_000))
    assert files.planned_at_us("dns") == 7_000


@pytest.mark.parametrize(
    ("size_bytes", "needs_growth", "would_shrink"),
    [(0, False, False), (1 << 20, True, False), (256 << 20, False, False), (512 << 20, False, True)],
)
def test_volumes_that_are_too_small_or_large(
    files: ApplianceFiles, paths: Paths, size_bytes: int, *, needs_growth: bool, would_shrink: bool
) -> None:
    plan = plan_of()
    if size_bytes:
        paths.appliance_state("dns").mkdir(parents=True)
        with paths.data_volume("dns").open("wb") as file:
            file.truncate(size_bytes)
    assert (files.needs_growth(plan), files.would_shrink(plan)) == (needs_growth, would_shrink)


def test_users_that_are_missing(files: ApplianceFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(appliances, "user_id", lambda name: None if name == "web" else 900)
    monkeypatch.setattr(appliances, "create_user", made.append)
    changes = files.plan_users(["dns", "web"])
    assert [str(change) for change in changes] == ["web: create its system user"]
    changes[0].apply()
    assert made == ["web"]


def test_time_zones(files: ApplianceFiles, paths: Paths) -> None:
    (paths.zoneinfo / "Europe").mkdir(parents=True)
    (paths.zoneinfo / "Europe/Berlin").write_bytes(b"TZif")
    assert files.read_time_zone("Europe/Berlin") == b"TZif"
    assert files.read_time_zone("Europe") is None
    assert files.read_time_zone("Mars/Olympus") is None


def test_current_image_of_something_else(files: ApplianceFiles, paths: Paths) -> None:
    paths.appliance_state("dns").mkdir(parents=True)
    assert files.current_image("dns") is None
    (paths.appliance_state("dns") / "current").symlink_to("../../images/none")
    assert files.current_image("dns") is None


# --- for swaps


def test_staging_leaves_what_the_running_guest_was_started_from(files: ApplianceFiles, paths: Paths) -> None:
    first, second = plan_of(), replace(plan_of(version="4.7-1"), initrd="/run/appliance/dns/initrd-2")
    apply(files.plan(first))
    assert apply(files.plan_staging(second)) == ["write its initrd", "write its unit settings"]
    run = paths.appliance_runtime("dns")
    assert (run / "launch").read_text("utf-8") == first.launch
    assert {path.name for path in run.iterdir()} == {"launch", "initrd-2", Path(first.initrd).name}
    assert files.current_image("dns") == sample_image().digest
    assert (paths.drop_in_directory("dns") / "50-appliance.conf").read_text("utf-8") == second.drop_in
    texts = apply(files.plan(second))
    assert texts[1:] == ["write its launch plan"]
    assert {path.name for path in run.iterdir()} == {"launch", "initrd-2"}


def test_what_was_staged_in_vain_goes_without_a_restart(files: ApplianceFiles, paths: Paths) -> None:
    first, second = plan_of(), replace(plan_of(), initrd="/run/appliance/dns/initrd-2")
    apply(files.plan(first))
    planned_at_us = files.planned_at_us("dns")
    apply(files.plan_staging(second))
    [change] = files.plan(first)
    assert (str(change), change.effect) == ("dns: remove an initrd that is not used", Effect.NONE)
    change.apply()
    run = paths.appliance_runtime("dns")
    assert {path.name for path in run.iterdir()} == {"launch", Path(first.initrd).name}
    assert (files.planned_at_us("dns"), files.plan(first)) == (planned_at_us, [])


def test_a_delivery_is_a_whole_number_of_sectors(files: ApplianceFiles, paths: Paths) -> None:
    plan = plan_of()
    apply(files.plan(plan))
    path = Path(files.write_delivery(plan))
    content = path.read_bytes()
    assert len(content) % 512 == 0
    assert content.rstrip(b"\0") == plan.guest_archive.rstrip(b"\0")
    assert files.reloaded_at_us("dns") == 0
    files.remove_delivery("dns")
    assert (path.exists(), files.reloaded_at_us("dns")) == (False, 0)
    files.mark_reloaded("dns")
    assert files.reloaded_at_us("dns") > 0
    assert (paths.appliance_runtime("dns") / "reloaded").read_bytes() == b""


def test_what_a_crash_left_is_removed_by_the_next_agent(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    paths.generations("dns").mkdir()
    files.write_delivery(plan_of())
    left = (
        paths.state / ".assignments.json.x.tmp",
        paths.appliance_record("dns").with_name(".state.x.tmp"),
        paths.generations("dns") / ".aa.x.tmp",
        paths.appliance_runtime("dns") / ".launch.x.tmp",
        paths.drop_in_directory("dns") / ".50-appliance.conf.x.tmp",
    )
    for path in left:
        path.touch()
    delivery, console = (paths.appliance_runtime("dns") / name for name in ("delivery", "console"))
    os.mknod(console, stat.S_IFSOCK | 0o755)
    files.remove_strays()
    assert not any(path.exists() for path in (*left, delivery, console))
    assert files.plan(plan_of()) == []


def test_what_cannot_start_has_no_initrd_to_stage(files: ApplianceFiles) -> None:
    assert [change.text for change in files.plan_staging(plan_of(refusal="no image"))] == [
        "write its unit settings"
    ]


def test_refusing_holds_until_the_next_plan(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    files.refuse("dns", "refuse it failed\n")
    launch = paths.appliance_runtime("dns") / "launch"
    assert (launch.read_text("utf-8"), mode(launch)) == ("refuse it failed\n", 0o640)
    assert apply(files.plan(plan_of())) == ["write its launch plan"]
    assert launch.read_text("utf-8") == plan_of().launch


def links(paths: Paths) -> dict[str, str]:
    return {
        path.name: os.readlink(path) for path in paths.appliance_state("dns").iterdir() if path.is_symlink()
    }


def test_links_to_images_that_one_may_go_back_to(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    first, second, third = (sample_image(version=version).digest for version in "123")
    files.link_next("dns", first)
    files.link_previous("dns", [first, second, third])
    current = {"current": f"../../images/{sample_image().digest.directory}"}
    assert links(paths) == current | {
        "next": f"../../images/{first.directory}",
        "previous": f"../../images/{first.directory}",
        "previous-2": f"../../images/{second.directory}",
        "previous-3": f"../../images/{third.directory}",
    }
    files.link_next("dns", None)
    files.link_previous("dns", [third])
    assert links(paths) == current | {"previous": f"../../images/{third.directory}"}
    files.link_previous("dns", [])
    assert links(paths) == current


def test_removal_takes_all_links_and_leaves_what_is_remembered(files: ApplianceFiles, paths: Paths) -> None:
    apply(files.plan(plan_of()))
    files.link_next("dns", sample_image().digest)
    files.link_previous("dns", [sample_image().digest] * 2)
    paths.appliance_record("dns").touch()
    apply(files.plan_removal("dns"))
    assert links(paths) == {}
    assert paths.appliance_record("dns").exists()


def check_of(plan: AppliancePlan) -> CheckPlan:
    assert plan.image is not None
    return plan_check(plan, plan.image, host=sample_facts(), runtime_digest="r")


def test_a_check_lies_where_no_reboot_sees_it(files: ApplianceFiles, paths: Paths, tmp_path: Path) -> None:
    apply(files.plan(plan_of()))
    check, known = check_of(plan_of()), files.known()
    before = set(tmp_path.rglob("*"))
    files.prepare_check(check)
    run = paths.runtime / "dns.check"
    drop_in = paths.runtime_units / "appliance@dns.check.service.d/50-appliance.conf"
    assert (run / "launch").read_text("utf-8") == check.launch
    assert (run / Path(check.initrd).name).read_bytes() == RUNTIME + check.guest_archive
    assert [mode(path) for path in run.iterdir()] == [0o640, 0o640]
    assert drop_in.read_text("utf-8") == check.drop_in
    # It is no appliance, and nothing of it is the appliance's.
    assert files.known() == known
    files.remove_check("dns")
    assert set(tmp_path.rglob("*")) - before == {paths.runtime_units.parent, paths.runtime_units}
    files.remove_check("dns")
