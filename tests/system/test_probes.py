"""Appliances as their clients see them: what the guest says of itself is not all there is."""

from __future__ import annotations

import time

from tests.system.conftest import Make
from tests.system.lab import Host
from tests.system.test_first_appliance import ask, fetch

NETWORK = "network: {name: default, address: 10.88.0.80}\n"
OUTSIDE = "seen from outside: "


def stays_healthy(host: Host, name: str, *, for_s: float = 6.0) -> None:
    """For longer than three failures in a row take."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        state = host.appliance(name)
        assert (state["health"], state["reason"]) == ("healthy", "")
        time.sleep(0.5)


def wait_reason(host: Host, name: str, reason: str) -> None:
    host.wait(reason, lambda: host.appliance(name)["reason"] == reason)


def set_probe(host: Host, name: str, text: str, probe: str) -> None:
    host.write(
        f"/etc/appliance/appliances/{name}.yaml", f"{text}health: {{interval: 400ms, probe: {probe}}}\n"
    )
    host.run("appliancectl", "apply")


def test_guest_that_is_well_and_answers_nobody(host: Host, web: str) -> None:
    set_probe(host, web, f"image: misbehave:1\n{NETWORK}data: 8M\n", "{http: {contains: misbehave}}")
    stays_healthy(host, web)
    cursor = host.cursor()
    before = host.unit(web, "MainPID", "NRestarts")
    fetch(host, "cgi-bin/away", check=False)
    reason = host.wait_health(web, "degraded")["reason"]
    # Without an answer to its ARP requests the kernel may also say: no route to host.
    assert reason.startswith(OUTSIDE)
    assert "10.88.0.80 port 80/tcp" in reason
    # The guest feeds its watchdog and is left alone; after 20 s it has its address again.
    host.wait_health(web, "healthy", timeout_s=60)
    assert host.unit(web, "MainPID", "NRestarts") == before
    told = [text for text in host.messages(web, since=cursor) if text.startswith("Appliance web ")]
    assert (told[0], told[-1]) == (f"Appliance web is degraded: {reason}.", "Appliance web is healthy.")


def test_probe_changes_without_a_restart(host: Host, web: str) -> None:
    before = host.unit(web, "MainPID")
    text = f"image: misbehave:1\n{NETWORK}data: 8M\n"
    set_probe(host, web, text, "{http: {contains: no such words}}")
    state = host.wait_health(web, "degraded")
    assert state["reason"] == f"{OUTSIDE}“no such words” is not in the page /"
    set_probe(host, web, text, "none")
    host.wait_health(web, "healthy")
    set_probe(host, web, text, "{http: {path: /nowhere}}")
    assert host.wait_health(web, "degraded")["reason"] == f"{OUTSIDE}HTTP status 404 instead of 200"
    set_probe(host, web, text, "[ping, {tcp: 80, http: {path: /nowhere, status: 404}}]")
    host.wait_health(web, "healthy")
    assert host.unit(web, "MainPID") == before


def test_stopped_appliance_is_not_asked(host: Host, web: str) -> None:
    set_probe(host, web, f"image: misbehave:1\n{NETWORK}data: 8M\n", "{tcp: 81}")
    assert "port 81/tcp is closed" in host.wait_health(web, "degraded")["reason"]
    host.run("systemctl", "stop", "appliance@web")
    assert host.wait_health(web, "stopped")["reason"] == ""


def test_every_kind_of_probe_works_in_the_agents_sandbox(host: Host, dns: str) -> None:
    text = "image: dns-nsd\nnetwork: {name: default, address: 10.88.0.53}\n"
    set_probe(host, dns, text, "[ping, {udp: 53, tcp: 53}, {dns: {name: example.test}}]")
    stays_healthy(host, dns)
    for probe, reason in (
        ("{dns: {name: example.org}}", "REFUSED for example.org SOA"),
        ("{dns: {name: nowhere.example.test, type: A}}", "NXDOMAIN for nowhere.example.test A"),
        ("{dns: {name: www.example.test, type: MX}}", "no MX record for www.example.test"),
        ("{udp: 54}", "10.88.0.53 port 54/udp is closed"),
        ("ntp", "10.88.0.53 port 123/udp is closed"),
        ("smtp", "10.88.0.53 port 25/tcp is closed"),
    ):
        set_probe(host, dns, text, probe)
        wait_reason(host, dns, f"{OUTSIDE}{reason}")
    assert ask(host) == "10.88.0.80"


def test_images_bring_probes_that_hold_without_any_configuration(host: Host, make: Make) -> None:
    make("names", "image: dns-nsd\n")
    make("site", f"image: web-nginx\n{NETWORK}data: 16M\n")
    cursor = host.cursor()
    host.run("systemctl", "start", "appliance@names", "appliance@site")
    for name in ("names", "site"):
        stays_healthy(host, name)
    assert any(
        '"GET / HTTP/1.1" 200' in text and "appliance-agent" in text
        for text in host.messages("site", since=cursor)
    )
    assert "status: any" in host.run("appliancectl", "image", "show", "dns-nsd")
