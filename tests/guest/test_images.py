"""The images that are shipped as recipes: built twice the same, and doing what their roles promise.

What a DHCP server promises is in test_dhcp.py."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.image import Image
from tests.guest.images import assert_serves, build_recipe, hear, start, telling, with_health
from tests.guest.uml import SHELL, Boot, Guest

CLIENT_BYTES = 8 << 20
"""The memory for a client that runs in the guest beside the service."""
DNS = ("dns-nsd", "dns-knot")
WEB = ("web-nginx", "web-lighttpd")
DHCP = ("dhcp-dnsmasq",)
each_image = pytest.mark.parametrize("name", [*DNS, *WEB, *DHCP])
each_dns = pytest.mark.parametrize("name", DNS)
each_web = pytest.mark.parametrize("name", WEB)

ZONE = b"""\
$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 300
@ IN NS ns
ns IN A 192.0.2.53
www IN A 192.0.2.80
"""
MORE_RECORDS = b"""\
@ IN MX 10 mail
@ IN TXT "v=spf1 -all"
ns IN AAAA 2001:db8::53
alias IN CNAME www
*.any IN A 192.0.2.99
sub IN NS ns.elsewhere.test.
$INCLUDE /run/appliance/config/zones/more.inc
"""
QUESTIONS = (
    *(("example.test", kind) for kind in ("soa", "ns", "mx", "txt", "a")),
    ("www.example.test", "a"),
    ("ns.example.test", "aaaa"),
    ("alias.example.test", "a"),
    ("one.any.example.test", "a"),
    ("under.sub.example.test", "a"),
    ("included.example.test", "a"),
    ("none.example.test", "a"),
    ("bad.test", "soa"),
    ("elsewhere.test", "soa"),
    ("192.0.2.80", "ptr"),
)
ASK_FOR_WWW = ("/run/appliance/bin/nslookup", "-type=a", "www.example.test", "127.0.0.1")

# For an appliance that may have either server.
SETTINGS = {
    "nginx/more.conf": b"add_header Settings-Of nginx;\n",
    "lighttpd/more.conf": b"""\
server.modules += ("mod_setenv")
setenv.add-response-header = ("Settings-Of" => "lighttpd")
""",
}

# Readable to nobody but the user that both web servers run as.
WRITE_SITE = """\
cd /data/htdocs; for file in page.html style.css data.unheard-of; do echo "This is $file" >$file; done; \
chown -R www-data: .; chmod -R go= ."""
READ_SITE = """\
for file in '' page.html style.css data.unheard-of none.html; \
do wget -S -O - http://127.0.0.1/$file 2>&1 | grep -E 'HTTP/|Content-Type|This is|It works'; done"""

PASSWORD_CONF = b"""\
server.modules += ("mod_auth", "mod_authn_file")
auth.backend = "plain"
auth.backend.plain.userfile = "/run/appliance/config/passwords"
auth.require = ("/" => ("method" => "basic", "realm" => "site", "require" => "valid-user"))
"""

MAXIMUM_SIZE_BYTES = 15 << 20


@each_image
def test_small(shipped: Callable[[str], Image], name: str) -> None:
    assert shipped(name).size_bytes < MAXIMUM_SIZE_BYTES


@each_image
def test_built_again_it_is_the_same(
    shipped: Callable[[str], Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    umask = os.umask(0o077)
    try:
        again = build_recipe(name, tmp_path / "elsewhere")
    finally:
        os.umask(umask)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == shipped(name).digest.hex


@each_dns
def test_dns(shipped: Callable[[str], Image], boot: Boot, name: str) -> None:
    assert_serves(start(boot, shipped(name), config={"zones/example.test.zone": ZONE}))


@each_dns
def test_dns_answers_for_its_zones(shipped: Callable[[str], Image], boot: Boot, name: str) -> None:
    asking = with_health(shipped(name), *ASK_FOR_WWW)
    assert_serves(start(boot, asking, config={"zones/example.test.zone": ZONE}))


@each_dns
def test_dns_without_zones(shipped: Callable[[str], Image], boot: Boot, name: str) -> None:
    guest = start(boot, shipped(name))
    assert_serves(guest)
    assert (
        "<4>No zone files in the configuration's zones directory; every query will be refused."
        in guest.lines
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("dns-nsd", "zones/bad.test.zone:6: "),
        ("dns-knot", "zones/bad.test.zone', line 6 "),
    ],
)
def test_dns_serves_the_other_zones_when_one_is_wrong(
    shipped: Callable[[str], Image], boot: Boot, name: str, place: str
) -> None:
    zones = {"zones/example.test.zone": ZONE, "zones/bad.test.zone": ZONE + b"x IN BLAH y\n"}
    guest = start(boot, with_health(shipped(name), *ASK_FOR_WWW), config=zones)
    guest.wait_text(place)
    assert_serves(guest)


@each_dns
def test_dns_refuses_a_zone_file_that_names_no_zone(
    shipped: Callable[[str], Image], boot: Boot, name: str
) -> None:
    guest = start(boot, shipped(name), config={'zones/a".zone': ZONE})
    assert guest.wait_end() == 85
    assert "the file name is not the name of a zone" in guest.text


@pytest.mark.parametrize(
    ("name", "path", "good", "bad", "reason"),
    [
        (
            "dns-nsd",
            "nsd/more.conf",
            b"server:\n  rrl-ratelimit: 200\n",
            b"server:\n  no-such-option: 200\n",
            "/run/appliance/config/nsd/more.conf:2: at 'no-such-option:': error: syntax error",
        ),
        (
            "dns-knot",
            "knot/more.conf",
            b"server:\n  udp-max-payload: 1400\n",
            b"server:\n  no-such-option: 200\n",
            "knot/more.conf', line 2, item 'no-such-option'",
        ),
    ],
)
def test_dns_checks_what_the_administrator_added(
    shipped: Callable[[str], Image], boot: Boot, name: str, path: str, good: bytes, bad: bytes, reason: str
) -> None:
    start(boot, shipped(name), config={path: good}).wait_ready()
    guest = start(boot, shipped(name), config={path: bad})
    assert guest.wait_end() == 86
    assert reason in guest.statuses[-1]


def test_dns_answers_are_the_same_from_each(shipped: Callable[[str], Image], boot: Boot) -> None:
    zones = {
        "zones/example.test.zone": ZONE + MORE_RECORDS,
        "zones/more.inc": b"included IN A 192.0.2.7\n",
        "zones/0.2.192.in-addr.arpa.zone": ZONE + b"80 IN PTR www.example.test.\n",
        "zones/bad.test.zone": ZONE + b"x IN BLAH y\n",
    }
    script = "; ".join(f"nslookup -type={kind} {name} 127.0.0.1" for name, kind in QUESTIONS)
    answers = {name: hear(start(boot, telling(shipped(name), script), config=zones)) for name in DNS}
    assert {"Address: 192.0.2.7", "** server can't find bad.test: SERVFAIL"} <= set(answers["dns-nsd"])
    assert answers["dns-knot"] == answers["dns-nsd"]


@each_web
def test_web(shipped: Callable[[str], Image], boot: Boot, data: Path, name: str) -> None:
    assert_serves(start(boot, shipped(name), data=data))


@each_web
def test_web_serves_the_site_on_the_data_volume(
    shipped: Callable[[str], Image], boot: Boot, data: Path, name: str
) -> None:
    assert_serves(start(boot, shipped(name), data=data))
    again = start(
        boot,
        with_health(shipped(name), "/run/appliance/bin/wget", "-q", "-O", "-", "http://127.0.0.1/"),
        data=data,
    )
    again.wait_text('"GET / HTTP/1.1" 200')
    assert_serves(again)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (
            "nginx",
            'check failed: unknown directive "no_such_option" in /run/appliance/config/nginx/more.conf:1',
        ),
        ("lighttpd", "source: /run/appliance/config/lighttpd/more.conf line: 1 "),
    ],
)
def test_web_checks_what_the_administrator_added(
    shipped: Callable[[str], Image], boot: Boot, data: Path, server: str, reason: str
) -> None:
    config = {f"{server}/more.conf": b"no_such_option on;\n"}
    guest = start(boot, shipped(f"web-{server}"), config=config, data=data)
    assert guest.wait_end() == 86
    assert reason in guest.statuses[-1]


def test_web_nginx_logs_what_an_added_server_does(
    shipped: Callable[[str], Image], boot: Boot, data: Path
) -> None:
    config = {"nginx/more.conf": b"server { listen 8080; root /data/htdocs; }\n"}
    asking = with_health(
        shipped("web-nginx"), "/run/appliance/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html"
    )
    guest = start(boot, asking, config=config, data=data)
    guest.wait_text('"GET /index.html HTTP/1.1" 200')
    assert_serves(guest)


def test_web_lighttpd_is_not_started_with_an_option_it_would_ignore(
    shipped: Callable[[str], Image], boot: Boot, data: Path
) -> None:
    config = {"lighttpd/more.conf": b'server.no-such-option = "on"\n'}
    guest = start(boot, shipped("web-lighttpd"), config=config, data=data)
    assert guest.wait_end() == 86
    assert "unknown config-key: server.no-such-option" in guest.statuses[-1]


def test_web_lighttpd_is_healthy_where_the_site_needs_a_password(
    shipped: Callable[[str], Image], boot: Boot, data: Path
) -> None:
    config = {"lighttpd/password.conf": PASSWORD_CONF}
    assert_serves(start(boot, shipped("web-lighttpd"), config=config, data=data))


@pytest.mark.parametrize("server", ["nginx", "lighttpd"])
def test_web_reads_its_own_settings_where_there_are_settings_for_both(
    shipped: Callable[[str], Image], boot: Boot, data: Path, server: str
) -> None:
    script = "wget -S -O /dev/null http://127.0.0.1/ 2>&1 | grep Settings-Of"
    heard = hear(start(boot, telling(shipped(f"web-{server}"), script), config=SETTINGS, data=data))
    assert [line.strip() for line in heard] == [f"Settings-Of: {server}"]


@pytest.mark.parametrize(("first", "second"), [WEB, WEB[::-1]])
def test_web_sites_move_between_images(
    shipped: Callable[[str], Image], boot: Boot, data: Path, first: str, second: str
) -> None:
    before = hear(start(boot, telling(shipped(first), f"{WRITE_SITE}; {READ_SITE}"), data=data))
    after = hear(start(boot, telling(shipped(second), READ_SITE), data=data))
    assert {"This is page.html", "This is style.css", "This is data.unheard-of"} <= set(before)
    assert after == before


# --- new files while the service runs


def restless(image: Image, kind: str, count: int) -> Image:
    """The image with a client in the guest that asks all the time, and memory for it. The client comes with
    the configuration, where nothing can be executed, and is begun by the first health check."""
    own = " ".join(image.manifest.health)
    program = "/run/appliance/prober"
    first = (
        f"cp /run/appliance/config/prober {program}; chmod +x {program};"
        f" ({program} ask {kind} {count} | logger -t heard) >/dev/null 2>&1 & echo begun | logger -t heard"
    )
    requests = replace(
        image.manifest.requests, memory_bytes=image.manifest.requests.memory_bytes + CLIENT_BYTES
    )
    image = replace(image, manifest=replace(image.manifest, requests=requests))
    return with_health(image, SHELL, "-c", f"[ -e {program} ] || {{ {first}; }}; exec {own}")


def lost_in_reloads(guest: Guest, sets: list[dict[str, bytes]], *, count: int) -> int:
    """How many of the questions of restless() had no answer while the guest took these files."""
    guest.wait_text("heard: begun")
    for files in sets:
        assert guest.reload(files) == "running", guest.describe()
    assert "heard: asked" not in guest.text, "the reloads outlasted the questions"
    guest.wait_text("heard: asked", timeout_s=120)
    [heard] = re.findall(rf"heard: asked {count}, lost ([0-9]+)", guest.text)
    return int(heard)


def zone_with(records: bytes, serial: int) -> bytes:
    return ZONE.replace(b" 1 3600", b" %d 3600" % serial) + records


@each_dns
def test_dns_takes_new_changed_and_removed_zones(
    shipped: Callable[[str], Image], boot: Boot, name: str
) -> None:
    names = ("kept.changed.test", "www.removed.test", "www.added.test", "fresh.changed.test")
    script = "".join(f"nslookup -type=a {each} 127.0.0.1 | grep -E '^Address: |find'; " for each in names)
    image = telling(shipped(name), f"{script}echo ROUND")
    before = {"changed.test": zone_with(b"kept IN A 192.0.2.1\n", 1), "removed.test": ZONE}
    after = {
        "changed.test": zone_with(b"kept IN A 192.0.2.2\nfresh IN A 192.0.2.3\n", 2),
        "added.test": ZONE,
    }
    guest = start(boot, image, config={f"zones/{zone}.zone": text for zone, text in before.items()})
    guest.wait_text("heard: END")
    assert guest.reload({f"zones/{zone}.zone": text for zone, text in after.items()}) == "running"
    rounds = guest.text.count("heard: END")
    guest.wait_until(lambda: guest.text.count("heard: END") >= rounds + 2)
    lines = [line.split("heard: ", 1)[1] for line in guest.lines if "heard: " in line]
    last = lines[: len(lines) - lines[::-1].index("END")][-6:-2]
    assert last == [
        "Address: 192.0.2.2",
        "** server can't find www.removed.test: REFUSED",
        "Address: 192.0.2.80",
        "Address: 192.0.2.3",
    ]
    assert guest.stop() == 0


@each_dns
def test_dns_loses_no_query_by_a_reload(
    shipped: Callable[[str], Image], boot: Boot, prober: bytes, name: str
) -> None:
    count = 800
    sets = [
        {
            "prober": prober,
            "zones/example.test.zone": zone_with(b"more IN A 192.0.2.9\n" * 100, serial),
            f"zones/of{serial}.test.zone": ZONE,
        }
        for serial in range(1, 6)
    ]
    guest = start(boot, restless(shipped(name), "dns", count), config=sets[0])
    assert lost_in_reloads(guest, sets[1:], count=count) == 0, guest.describe()
    assert guest.stop() == 0


@pytest.mark.parametrize("server", ["nginx", "lighttpd"])
def test_web_loses_no_request_by_a_reload(
    shipped: Callable[[str], Image], boot: Boot, data: Path, prober: bytes, server: str
) -> None:
    count = 800
    sets = [
        {
            f"{path.split('/')[0]}/more.conf": content + b"# %d\n" % number
            for path, content in SETTINGS.items()
        }
        | {"prober": prober}
        for number in range(5)
    ]
    guest = start(boot, restless(shipped(f"web-{server}"), "http", count), config=sets[0], data=data)
    assert lost_in_reloads(guest, sets[1:], count=count) == 0, guest.describe()
    assert guest.stop() == 0


@pytest.mark.parametrize("server", ["nginx", "lighttpd"])
def test_web_takes_new_settings(
    shipped: Callable[[str], Image], boot: Boot, data: Path, server: str
) -> None:
    image = telling(
        shipped(f"web-{server}"), "wget -S -O /dev/null http://127.0.0.1/ 2>&1 | grep Settings-Of"
    )
    guest = start(boot, image, data=data)
    guest.wait_text("heard: END")
    assert f"Settings-Of: {server}" not in guest.text
    assert guest.reload(SETTINGS) == "running"
    guest.wait_text(f"Settings-Of: {server}")
    assert guest.stop() == 0


@pytest.mark.parametrize(
    ("name", "path"),
    [("dns-nsd", "nsd"), ("dns-knot", "knot"), ("web-nginx", "nginx"), ("web-lighttpd", "lighttpd")],
)
def test_settings_that_are_wrong_change_nothing(
    shipped: Callable[[str], Image], boot: Boot, data: Path, name: str, path: str
) -> None:
    config = {"zones/example.test.zone": ZONE}
    guest = start(boot, shipped(name), config=config, data=data if name.startswith("web") else None)
    guest.wait_ready()
    outcome = guest.reload({**config, f"{path}/more.conf": b"no_such_option on;\n"})
    assert outcome.startswith("reload failed: check failed: "), guest.describe()
    assert guest.reload(config) == "running"
    guest.wait_until(lambda: guest.watchdog_count > 0)
    assert guest.stop() == 0
