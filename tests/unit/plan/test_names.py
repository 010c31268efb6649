"""Names of appliances."""

from __future__ import annotations

from agent.config.tree import read_tree
from agent.model.assignments import Assignments
from agent.model.network import Port
from agent.plan.names import all_names, names_disk, neighbours_of
from agent.plan.ports import allocate, plan_ports
from tests.fakes.samples import sample_files
from tests.unit.plan.reading import read_archives

NETWORKS = {
    "default": "subnets: [10.0.0.0/24, 'fd00::/64']\nsearch: [example.test, example.org]\n",
    "back": "subnets: [10.1.0.0/24]\n",
}


def ports() -> dict[str, tuple[Port, ...]]:
    settings = {"dns": "default", "web": ["default", "back"], "db": "back"}
    files = sample_files(
        {name: {"image": "x", "network": network} for name, network in settings.items()}, networks=NETWORKS
    )
    configuration = read_tree(files)
    return plan_ports(configuration, allocate(configuration, Assignments()), machine_id="0")


def test_neighbours_are_those_on_a_network_of_one_s_own() -> None:
    assert neighbours_of("dns", ports()) == ("10.0.0.3 web.example.test web\nfd00::3 web.example.test web\n")
    assert neighbours_of("db", ports()) == "10.1.0.3 web\n"
    assert neighbours_of("web", ports()) == (
        "10.1.0.2 db\n10.0.0.2 dns.example.test dns\nfd00::2 dns.example.test dns\n"
    )


def test_the_host_knows_everybody() -> None:
    lines = all_names(ports()).splitlines()
    assert len(lines) == 6
    assert "10.1.0.3 web" in lines


def test_the_disk_is_an_archive_in_whole_sectors() -> None:
    for hosts in ("", "10.0.0.2 dns\n" * 100):
        disk = names_disk(hosts)
        assert len(disk) % 512 == 0
        end = disk.index(b"TRAILER!!!") + len(b"TRAILER!!!\0")
        [entry] = read_archives(disk[: end + -end % 4])
        assert (entry.name, entry.content) == ("appliance/hosts", hosts.encode())
        assert not any(disk[end:])
