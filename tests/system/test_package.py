"""The Debian packages on a host with running appliances."""

from __future__ import annotations

from tests.system.lab import Host
from tests.system.test_agent import agent_pid
from tests.system.test_first_appliance import fetch
from tests.system.test_network import OTHERS


def test_upgrade_restarts_the_agent_and_no_appliance(host: Host, web: str) -> None:
    guest, agent = host.unit(web, "MainPID"), agent_pid(host)
    packages = host.run("sh", "-c", "echo /var/tmp/packages/*.deb").split()
    host.run("apt-get", "install", "--reinstall", "--yes", *packages, timeout_s=300)
    assert agent_pid(host) not in {agent, "0"}
    assert host.unit(web, "MainPID") == guest
    assert fetch(host) == "misbehave 1\n"
    host.wait_health(web, "healthy")


def test_removal_takes_what_is_ours_from_the_network_and_nothing_else(host: Host, web: str) -> None:
    packages = host.run("sh", "-c", "echo /var/tmp/packages/*.deb").split()
    host.run("sh", "-euc", OTHERS)
    assert "web" in host.run("cat", "/etc/hosts")
    host.run("apt-get", "remove", "--yes", "appliance-agent", timeout_s=300)
    try:
        tables = host.run("nft", "list", "tables")
        assert ("appliance" in tables, "inet theirs" in tables) == (False, True)
        links = host.run("ip", "-oneline", "link")
        assert "theirs0" in links
        assert not any(name in links for name in ("br-default", "ap-web"))
        assert "web" not in host.run("cat", "/etc/hosts")
        assert host.run("sh", "-c", "ls /run/systemd/network/*appliance* 2>/dev/null", check=False) == ""
        assert host.run("pgrep", "--count", "linux", check=False).strip() == "0"
    finally:
        host.run("apt-get", "install", "--yes", *packages, timeout_s=300)
        host.run("sh", "-euc", "nft delete table inet theirs; ip link del theirs0")
    assert host.appliance(web)["name"] == web
