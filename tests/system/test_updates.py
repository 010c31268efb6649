"""Updates by the timer's service: what is automatic follows the store, what is bad is taken back once, and a
group goes on answering."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import images
from tests.system.conftest import Make
from tests.system.images import CRASH, Kind
from tests.system.lab import Host
from tests.system.test_first_appliance import fetch
from tests.system.test_swap import import_image, last

# Images of their own names: what others import must be no update of these.
GOOD, BAD = "follow", "astray"
WEB = """\
image: {image}
network: {{name: default, address: 10.88.0.{host}}}
data: 8M
health: {{interval: 400ms, probe: {{http: {{path: /}}}}}}
update: {{policy: {policy}, soak: 1s}}
"""
# Asks both members every 50 ms and prints how many times nobody answered, and how often somebody did.
ASK_BOTH = """
import http.client, time
failed = answered = 0
while time.monotonic() < END:
    for host in ("10.88.0.81", "10.88.0.82"):
        connection = http.client.HTTPConnection(host, timeout=0.5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            answered += 1
            break
        except OSError:
            continue
        finally:
            connection.close()
    else:
        failed += 1
    time.sleep(0.05)
print(failed, answered)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Image files by name and version; the test imports them when it is time."""
    directory = tmp_path_factory.mktemp("updates")
    kinds = [
        *(Kind(name=GOOD, version=version) for version in ("1", "2")),
        Kind(name=BAD, version="1"),
        Kind(name=BAD, version="2", exec=CRASH),
        Kind(name=BAD, version="3", memory="64M"),
    ]
    return {f"{kind.name}:{kind.version}": images.build(directory, kind) for kind in kinds}


@pytest.fixture
def store(host: Host, files: dict[str, Path]) -> Iterator[Host]:
    """A host with the first versions, and none of the later ones before and after; its timer does not
    come across."""
    host.run("systemctl", "stop", "appliance-update.timer")
    for image in (GOOD, BAD):
        import_image(host, files[f"{image}:1"])
    yield host
    host.run("sh", "-c", "rm -rf /etc/appliance/appliances/*; appliancectl apply")
    host.run("sh", "-c", "rm -rf /var/lib/appliance/appliances/*")
    for entry in host.json("image", "list"):
        if entry["name"] in {GOOD, BAD}:
            host.run("appliancectl", "image", "remove", entry["digest"])
    host.run("systemctl", "start", "appliance-update.timer")


def run_timer(host: Host) -> None:
    host.run("systemctl", "start", "appliance-update.service")


def outlook(host: Host, name: str) -> tuple[str, str]:
    [found] = host.json("update", "--check", name)
    return found["standing"], found["reason"]


def web(image: str, policy: str, host: int = 80) -> str:
    return WEB.format(image=image, policy=policy, host=host)


def test_timer_is_enabled_and_its_service_is_confined(host: Host) -> None:
    assert host.run("systemctl", "is-enabled", "appliance-update.timer") == "enabled\n"
    assert host.run("systemctl", "is-active", "appliance-update.timer") == "active\n"
    text = host.run("systemd-analyze", "security", "--no-pager", "appliance-update.service", check=False)
    exposure = re.search(r"Overall exposure level for appliance-update\.service: ([0-9.]+)", text)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5
    # Without any appliance it has nothing to do, and fails with nothing.
    run_timer(host)


def test_automatic_update(store: Host, make: Make, files: dict[str, Path]) -> None:
    make("web", web(GOOD, "auto"))
    store.run("systemctl", "start", "appliance@web")
    run_timer(store)
    assert (fetch(store), outlook(store, "web")[0]) == ("follow 1\n", "up-to-date")
    import_image(store, files["follow:2"])
    assert "unchecked" in outlook(store, "web")
    run_timer(store)
    assert fetch(store) == "follow 2\n"
    assert (last(store, "web")["result"], outlook(store, "web")[0]) == ("committed", "up-to-date")
    store.run("appliancectl", "rollback", "web")
    run_timer(store)
    assert (fetch(store), outlook(store, "web")[0]) == ("follow 1\n", "taken-back")
    assert "swapped" in store.run("appliancectl", "update", "web")
    assert fetch(store) == "follow 2\n"


def test_bad_image_is_taken_back_once(store: Host, make: Make, files: dict[str, Path]) -> None:
    make("web", web(BAD, "auto"))
    store.run("systemctl", "start", "appliance@web")
    import_image(store, files["astray:2"])
    run_timer(store)
    assert fetch(store) == "astray 1\n"
    assert last(store, "web")["result"] == "rolled-back"
    pid = store.unit("web", "MainPID")
    run_timer(store)
    standing, reason = outlook(store, "web")
    assert (standing, reason.split(":")[0]) == ("quarantined", "quarantined")
    assert (len(store.json("history", "web")), store.unit("web", "MainPID")) == (1, pid)
    assert store.try_run("appliancectl", "update", "web").returncode == 1
    import_image(store, files["astray:3"])
    cursor = store.cursor()
    for _ in range(2):
        run_timer(store)
    assert outlook(store, "web") == ("asks-for-more", "asks for more: it wants 64M of memory, not 32M")
    assert len(store.journal("APPLIANCE_EVENT=update_refused", since=cursor)) == 1
    assert store.unit("web", "MainPID") == pid


def test_stage_checks_and_waits(store: Host, make: Make, files: dict[str, Path]) -> None:
    make("web", web(GOOD, "stage"))
    store.run("systemctl", "start", "appliance@web")
    import_image(store, files["follow:2"])
    cursor, pid = store.cursor(), store.unit("web", "MainPID")
    for _ in range(2):
        run_timer(store)
    assert outlook(store, "web") == ("staged", "staged")
    assert len(store.journal("APPLIANCE_EVENT=update_available", since=cursor)) == 1
    store.write("/etc/appliance/config/web/fail-check-of-2", "")
    store.run("appliancectl", "apply")
    store.wait("rest", lambda: store.json("history", "web"))
    run_timer(store)
    standing, reason = outlook(store, "web")
    assert standing == "refused"
    assert reason.startswith("refused: the image's check of the configuration failed: check failed")
    assert (store.unit("web", "MainPID"), fetch(store)) == (pid, "follow 1\n")
    assert "web.check" not in store.run("ls", "/run/appliance").split()


@contextmanager
def asking(host: Host, seconds: float) -> Iterator[list[int]]:
    """Ask both members all the time; how many times nobody answered, and how often somebody did."""
    program = ASK_BOTH.replace("END", f"{time.monotonic() + seconds}")
    process = host.start("python3", "-c", program)
    counts: list[int] = []
    try:
        yield counts
    finally:
        out, _ = process.communicate(timeout=seconds + 30)
        counts.extend(map(int, out.split()))


def test_group_keeps_one_member_answering(store: Host, make: Make, files: dict[str, Path]) -> None:
    for number in (1, 2):
        make(f"web{number}", web(GOOD, "auto", 80 + number) + "group: web\n")
    store.run("systemctl", "start", "appliance@web1", "appliance@web2")
    import_image(store, files["follow:2"])
    with asking(store, 20) as counts:
        time.sleep(1)
        run_timer(store)
    failed, answered = counts
    assert (failed, answered > 100) == (0, True)
    assert {entry["image"] for entry in store.json("list")} == {"follow:2"}
    first, second = (last(store, f"web{number}") for number in (1, 2))
    assert (first["result"], second["result"]) == ("committed", "committed")
    assert first["ended_us"] <= second["started_us"]


def test_bad_image_stays_in_one_member(store: Host, make: Make, files: dict[str, Path]) -> None:
    for number in (1, 2):
        make(f"web{number}", web(BAD, "auto", 80 + number) + "group: web\n")
    store.run("systemctl", "start", "appliance@web1", "appliance@web2")
    import_image(store, files["astray:2"])
    for _ in range(2):
        run_timer(store)
    assert [len(store.json("history", f"web{number}")) for number in (1, 2)] == [1, 0]
    assert {entry["image"] for entry in store.json("list")} == {"astray:1"}
    assert outlook(store, "web2")[1].startswith("quarantined in web1: ")
