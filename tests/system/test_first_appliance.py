"""What an administrator does first: start appliances, ask them, look at them, stop them."""

from __future__ import annotations

import json
import re
from select import select

from tests.system.conftest import Make
from tests.system.lab import Host


def ask(host: Host, name: str = "www.example.test") -> str:
    return host.run("dig", "+short", "+tries=1", "+time=2", "@10.88.0.53", name).strip()


def fetch(host: Host, path: str = "", *, check: bool = True) -> str:
    return host.run("curl", "--silent", "--max-time", "3", f"http://10.88.0.80/{path}", check=check)


def test_name_server_answers_as_soon_as_start_returns(host: Host, dns: str) -> None:
    assert ask(host) == "10.88.0.80"
    assert (
        host.run("dig", "+tcp", "+short", "+tries=1", "@10.88.0.53", "example.test", "NS").strip()
        == "ns.example.test."
    )
    state = host.appliance(dns)
    assert (state["state"], state["health"]) == ("active", "healthy")
    [address, address_6] = state["addresses"]
    assert address == "10.88.0.53"
    assert host.run("dig", "+short", "+tries=1", f"@{address_6}", "www.example.test").strip() == "10.88.0.80"
    assert state["image"].startswith("dns-nsd:")


def test_web_server_serves_its_data_volume(host: Host) -> None:
    host.write(
        "/etc/appliance/appliances/site.yaml",
        "image: web-nginx\nnetwork: {name: default, address: 10.88.0.80}\ndata: 16M\n",
    )
    host.run("appliancectl", "apply")
    host.run("systemctl", "start", "appliance@site")
    headers = host.run("curl", "--silent", "--include", "--max-time", "3", "http://10.88.0.80/")
    assert headers.startswith("HTTP/1.1 200")
    assert "Server: nginx" in headers


def test_start_and_stop_need_no_agent(host: Host, web: str) -> None:
    host.run("systemctl", "mask", "--runtime", "--now", "appliance-agent")
    try:
        host.run("systemctl", "stop", "appliance@web")
        host.run("systemctl", "start", "appliance@web")
        assert fetch(host) == "misbehave 1\n"
        host.run("appliancectl", "restart", web)
        assert fetch(host) == "misbehave 1\n"
    finally:
        host.run("systemctl", "unmask", "--runtime", "appliance-agent")
        host.run("systemctl", "start", "appliance-agent")
    assert host.appliance(web)["health"] == "healthy"


def test_guest_finds_what_the_host_promises(host: Host, make: Make) -> None:
    host.write(
        "/etc/appliance/networks/both.yaml",
        "subnets: [10.99.0.0/24, 'fd12:3456::/64']\nnameservers: [10.99.0.1]\nsearch: [example.test]\n",
    )
    try:
        network = "network: {name: both, address: [10.99.0.7, 'fd12:3456::7']}"
        text = f"image: misbehave:1\n{network}\ntimezone: Asia/Tokyo\n"
        make("seven", text, greeting="hello from the host\n")
        host.run("systemctl", "start", "appliance@seven")
        about = host.run("curl", "--silent", "--max-time", "3", "http://10.99.0.7/cgi-bin/about")
        over_ipv6 = host.run("curl", "--silent", "--max-time", "3", "http://[fd12:3456::7]/")
    finally:
        host.run("rm", "-f", "/etc/appliance/appliances/seven.yaml", "/etc/appliance/networks/both.yaml")
        host.run("appliancectl", "apply")
    assert about.startswith("seven\n")
    assert "inet 10.99.0.7/24" in about
    assert "inet6 fd12:3456::7/64" in about
    assert "nameserver 10.99.0.1" in about
    assert "search example.test" in about
    assert "hello from the host" in about
    assert "JST" in about
    assert over_ipv6 == "misbehave 1\n"


def test_data_outlives_restarts_and_grows(host: Host, web: str) -> None:
    assert fetch(host, "cgi-bin/count") == "1\n"
    host.run("systemctl", "restart", "appliance@web")
    assert fetch(host, "cgi-bin/count") == "2\n"
    before = int(fetch(host, "cgi-bin/size").split()[1])
    host.run("sed", "-i", "s/^data: .*/data: 32M/", "/etc/appliance/appliances/web.yaml")
    assert "web: grow its data volume" in host.run("appliancectl", "apply")
    assert int(fetch(host, "cgi-bin/size").split()[1]) > 2 * before
    assert fetch(host, "cgi-bin/count") == "3\n"
    assert host.appliance(web)["health"] == "healthy"


def test_shrinking_is_refused_and_nothing_touched(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")
    host.run("sed", "-i", "s/^data: .*/data: 4M/", "/etc/appliance/appliances/web.yaml")
    refused = host.try_run("appliancectl", "apply")
    assert refused.returncode == 3
    assert "data: the volume is larger already" in refused.stderr
    assert host.unit(web, "MainPID") == pid


def test_log_lines_have_their_priority_and_fields(host: Host, web: str) -> None:
    fetch(host, "cgi-bin/log")

    def entries() -> dict[str, dict[str, str]]:
        return {
            entry["MESSAGE"]: entry for entry in host.journal("--unit=appliance@web") if "APPLIANCE" in entry
        }

    found = host.wait(
        "the log lines", lambda: entries() if any("to syslog" in text for text in entries()) else {}
    )
    [syslog] = [entry for text, entry in found.items() if "to syslog" in text]
    assert syslog["PRIORITY"] == "3"
    assert syslog["MESSAGE"].startswith("tester")
    assert found["with a prefix"]["PRIORITY"] == "4"
    assert {entry["APPLIANCE"] for entry in found.values()} == {"web"}
    assert syslog["APPLIANCE_IMAGE"] == "misbehave:1"
    assert re.fullmatch("sha256:[0-9a-f]{64}", syslog["APPLIANCE_IMAGE_DIGEST"])


def test_agents_lines_stand_in_the_appliances_log(host: Host, web: str) -> None:
    host.wait_health(web, "healthy")
    cursor = host.cursor()
    host.run("systemctl", "restart", "appliance@web")
    host.wait("the event", lambda: "Appliance web is healthy." in host.messages(web, since=cursor))
    events = [entry for entry in host.journal("APPLIANCE=web", since=cursor) if "APPLIANCE_EVENT" in entry]
    assert [entry["APPLIANCE_EVENT"] for entry in events] == ["stopped", "starting", "healthy"]
    assert all(re.fullmatch("[0-9a-f]{32}", entry["MESSAGE_ID"]) for entry in events)
    explained = host.run(
        "journalctl", "--catalog", "--no-pager", f"MESSAGE_ID={events[-1]['MESSAGE_ID']}", "APPLIANCE=web"
    )
    assert "Subject: Appliance web is healthy" in explained


def test_sandbox_is_as_tight_as_promised(host: Host, web: str) -> None:
    shown = host.run("systemd-analyze", "security", "--no-pager", "appliance@web")
    found = re.search(r"Overall exposure level for appliance@web\.service: ([0-9.]+)", shown)
    assert found
    # systemd 252 cannot open the tap for the launcher, so the unit stays in the host's network there.
    version = int(host.run("systemctl", "--version").split()[1])
    assert float(found[1]) <= (0.5 if version >= 253 else 1.0)
    pid = host.unit(web, "MainPID")["MainPID"]
    text = host.run("cat", f"/proc/{pid}/status")
    assert re.search(r"^CapBnd:\t0+$", text, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", text, re.MULTILINE)
    user = host.run("id", "--user", "appliance-web").strip()
    assert f"\nUid:\t{user}\t{user}\t{user}\t{user}\n" in text


def test_guest_has_a_root_of_its_own(host: Host, web: str, make: Make) -> None:
    make("other", "image: misbehave:1\ndata: 8M\n")
    pid = host.unit(web, "MainPID")["MainPID"]
    root = f"/proc/{pid}/root"
    assert host.run("ls", f"{root}/etc") == ""
    assert host.run("ls", f"{root}/var/lib/appliance").split() == ["appliances", "images"]
    assert host.run("find", f"{root}/var/lib/appliance/appliances", "-type", "f").split() == [
        f"{root}/var/lib/appliance/appliances/web/data.img"
    ]
    assert host.run("ls", f"{root}/run/appliance").split() == ["memory", "web"]


def test_guest_is_pinned_and_limited(host: Host, web: str) -> None:
    pid = host.unit(web, "MainPID")["MainPID"]
    core = host.appliance(web)["core"]
    assert host.run("taskset", "-c", "-p", pid).strip().endswith(f": {core}")
    assert int(host.unit(web, "MemoryMax")["MemoryMax"]) == (32 + 24) << 20


def test_guests_are_spread_over_the_cores(host: Host, make: Make) -> None:
    for name in ("one", "two", "three", "four"):
        make(name, "image: misbehave:1\n")
    cores = [appliance["core"] for appliance in host.json("list")]
    counts = {core: cores.count(core) for core in cores}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_properties_change_with_signals(host: Host, web: str) -> None:
    watched = host.start("timeout", "20", "busctl", "monitor", "--json=short", "org.appliance1")
    assert watched.stdout
    output_fd = watched.stdout.fileno()
    try:
        # The bus makes a monitor of it some time after its start.
        host.wait("the monitor", lambda: host.json("list") and select([output_fd], [], [], 0)[0])
        host.run("systemctl", "restart", "appliance@web")
        host.wait_health(web, "healthy")
    finally:
        host.run("pkill", "-f", "busctl monitor", check=False)
        output, _ = watched.communicate(timeout=30)
    signals = [json.loads(line) for line in output.splitlines() if '"PropertiesChanged"' in line]
    told = [
        entry["payload"]["data"][1]["Health"]["data"]
        for entry in signals
        if "Health" in entry["payload"]["data"][1]
    ]
    assert told == ["stopped", "starting", "healthy"]


def test_unprivileged_users_may_look_and_not_touch(host: Host, web: str) -> None:
    def as_nobody(*argv: str) -> tuple[int, str]:
        done = host.try_run("runuser", "-u", "nobody", "--", *argv)
        return done.returncode, done.stdout + done.stderr

    assert as_nobody("appliancectl", "list")[0] == 0
    status, text = as_nobody("appliancectl", "apply")
    assert status == 10
    assert "Traceback" not in text


def test_command_line_says_what_is_wrong(host: Host, web: str) -> None:
    unknown = host.try_run("appliancectl", "start", "nope")
    assert unknown.returncode == 4
    assert "There is no appliance “nope”" in unknown.stderr
    assert host.try_run("appliancectl", "frobnicate").returncode == 2
    assert host.try_run("appliancectl", "image", "show", "nope").returncode == 4
    for verb in (
        ["list"],
        ["status", "web"],
        ["check"],
        ["doctor"],
        ["image", "list"],
        ["apply", "--dry-run"],
    ):
        json.loads(host.try_run("appliancectl", *verb, "--json").stdout)


def test_doctor_finds_this_host_fit(host: Host) -> None:
    findings = host.json("doctor")
    assert [finding for finding in findings if finding["verdict"] == "failed"] == []
