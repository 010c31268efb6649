"""The Debian packages on a host with running appliances. The last module: it ends with the packages gone."""

from __future__ import annotations

from tests.system.lab import Host
from tests.system.test_agent import agent_pid
from tests.system.test_first_appliance import fetch


def test_upgrade_restarts_the_agent_and_no_appliance(host: Host, web: str) -> None:
    guest, agent = host.unit(web, "MainPID"), agent_pid(host)
    packages = host.run("sh", "-c", "echo /var/tmp/packages/*.deb").split()
    host.run("apt-get", "install", "--reinstall", "--yes", *packages, timeout_s=300)
    assert agent_pid(host) not in {agent, "0"}
    assert host.unit(web, "MainPID") == guest
    assert fetch(host) == "misbehave 1\n"
    host.wait_health(web, "healthy")
