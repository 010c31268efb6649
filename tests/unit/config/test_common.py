"""Checks shared by all readers."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import common
from agent.model.image import Digest, ImageReference
from tests.unit.config.strategies import HOSTILE_TEXTS, hostile_texts

HEX = "0123456789abcdef" * 4

GOOD: dict[Callable[[str], str], tuple[str, ...]] = {
    common.check_appliance_name: ("a", "dns", "dns-2", "a" * 21, "a-b-c"),
    common.check_network_name: ("a", "default", "a" * 12),
    common.check_absolute_path: ("/a", "/usr/lib/x", "/with space", "/a..b", "/ä"),
    common.check_domain: ("a", "example.test", "xn--bcher-kva.example", "a" * 63, "1.2"),
    common.check_time_zone: ("UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"),
    common.check_mac: ("02:00:00:12:34:56", "00:16:3e:00:00:00"),
    common.check_reference: ("dns", "dns:4.6", "dns.nsd:4.6.1-1~rc1+x", f"sha256:{HEX}"),
    common.check_address: ("10.88.0.5", "fd00::5", "::"),
    common.check_subnet: ("10.88.0.0/24", "10.88.0.0/30", "fd00::/64", "192.0.2.0/24"),
}
BAD: dict[Callable[[str], str], tuple[str, ...]] = {
    common.check_appliance_name: (
        "",
        "A",
        "1a",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "a.b",
        "a@b",
        "a" * 22,
        "a\n",
        "ä",
    ),
    common.check_network_name: ("", "default_", "a" * 13, "a/b"),
    common.check_absolute_path: ("", "/", "a", "./a", "/a/", "/a//b", "//a", "/a/../b", "/a/.", "/.."),
    common.check_domain: (
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "A",
        "-a",
        "a-",
        "a_b",
        "a" * 64,
        f"{'a.' * 127}a",
        "a\n",
    ),
    common.check_time_zone: ("", "../x", "/etc", "Europe/", "a/b/c/d", "Europe/Ber lin", "leap.txt"),
    common.check_mac: (
        "",
        "02:00:00:12:34",
        "02-00-00-12-34-56",
        "02:00:00:12:34:5G",
        "01:00:00:00:00:00",
        "02:00:00:12:34:5A",
    ),
    common.check_reference: (
        "",
        ":",
        "dns:",
        ":4",
        "dns:4:5",
        "sha256:12",
        f"sha256:{HEX.upper()}",
        "dns/nsd",
        "Dns",
        "sha256",
    ),
    common.check_address: ("", "10.88.0", "10.88.0.256", "fe80::1%eth0", "10.88.0.5/24", "010.0.0.1"),
    common.check_subnet: (
        "",
        "10.88.0.0",
        "10.88.0.1/24",
        "10.88.0.0/31",
        "10.88.0.0/33",
        "224.0.0.0/8",
        "127.0.0.0/8",
        "fe80::/64",
        "169.254.0.0/16",
    ),
}


@pytest.mark.parametrize(
    ("check", "text"), [(check, text) for check, texts in GOOD.items() for text in texts]
)
def test_good(check: Callable[[str], str], text: str) -> None:
    assert check(text) == ""


@pytest.mark.parametrize(
    ("check", "text"), [(check, text) for check, texts in BAD.items() for text in texts]
)
def test_bad(check: Callable[[str], str], text: str) -> None:
    assert check(text)


@pytest.mark.parametrize("check", GOOD)
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_what_has_lines_or_leaves_a_directory_is_never_good(check: Callable[[str], str], text: str) -> None:
    if not text.isprintable() and check is not common.check_absolute_path:
        assert check(text)  # paths are asked for with Value.text(), which refuses control characters itself
    if ".." in text:
        assert check(text)


@given(hostile_texts | st.text(alphabet="/.a", max_size=12))
def test_a_path_that_is_accepted_stays_where_it_is_put(text: str) -> None:
    if common.check_absolute_path(text) == "":
        inside = posixpath.normpath(f"/root{text}")
        assert inside.startswith("/root/")
        assert inside == f"/root{text}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dns", ImageReference(name="dns")),
        ("dns:4.6", ImageReference(name="dns", version="4.6")),
        (f"sha256:{HEX}", ImageReference(digest=Digest(HEX))),
        ("sha256", None),
        ("sha256:4", None),
    ],
)
def test_references(text: str, expected: ImageReference | None) -> None:
    assert common.parse_reference(text) == expected


@given(st.sampled_from(GOOD[common.check_reference]))
def test_a_reference_is_written_as_it_was_read(text: str) -> None:
    assert str(common.parse_reference(text)) == text
