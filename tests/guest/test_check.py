"""Guests that only lint a configuration: until=check."""

from __future__ import annotations

from tests.guest.uml import FOREVER, Boot, Plan

UNTIL = "until=check"


def test_guest_ends_well_after_its_check_and_never_starts_the_service(boot: Boot) -> None:
    guest = boot(Plan(prepare="echo prepared", check="echo checked", exec="echo started", more=[UNTIL]))
    assert guest.wait_end() == 0
    assert "prepared" in guest.lines
    assert "checked" in guest.lines
    assert "started" not in guest.lines
    assert not guest.is_ready


def test_failing_check_is_told_as_ever(boot: Boot) -> None:
    guest = boot(Plan(check="echo line 7 is wrong; exit 1", exec=FOREVER, more=[UNTIL]))
    assert guest.wait_end() == 86
    assert guest.statuses[-1] == "check failed: line 7 is wrong"


def test_without_a_check_it_ends_well(boot: Boot) -> None:
    assert boot(Plan(exec=FOREVER, more=[UNTIL])).wait_end() == 0


def test_addresses_that_only_the_appliance_has_can_be_bound(boot: Boot) -> None:
    """As servers do that are asked to test their configuration."""
    check = """
        for address in 10.9.8.7 fd00::7; do
            timeout 0.3 httpd -f -p "[$address]:81" -h / || [ $? = 143 ] || exit 1
        done
    """
    ipv4 = check.replace("10.9.8.7 fd00::7", "10.9.8.7").replace("[$address]", "$address")
    for script in (ipv4, check.replace("10.9.8.7 ", "")):
        guest = boot(Plan(check=script, exec=FOREVER, more=[UNTIL]))
        assert guest.wait_end() == 0, guest.describe()


def test_otherwise_they_cannot(boot: Boot) -> None:
    guest = boot(Plan(exec="exec httpd -f -p 10.9.8.7:81 -h /"))
    assert guest.wait_end() == 87
