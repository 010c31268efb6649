"""What libsystemd's answers become."""

from __future__ import annotations

import errno

import pytest

from agent.cli import client
from agent.model.errors import ApplianceError, Problem

PROPERTIES = {
    b"Name": b"dns",
    b"Unit": b"appliance@dns.service",
    b"Image": b"dns-nsd:4.6",
    b"Digest": b"sha256:00",
    b"State": b"active",
    b"Health": b"healthy",
    b"Reason": "gr\u00fcn".encode(),
    b"Address": [b"10.88.0.2"],
    b"Since": 5,
    b"Restarts": 0,
    b"Core": 1,
    b"RestartPending": True,
}


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> None:
    web = {**PROPERTIES, b"Name": b"web"}
    answer = {
        b"/org/appliance1/appliance/web": {b"org.appliance1.Appliance": web},
        b"/org/appliance1/appliance/dns": {b"org.appliance1.Appliance": PROPERTIES},
        b"/org/appliance1/other": {b"org.appliance1.Later": {}},
    }
    monkeypatch.setattr(client, "call", lambda *_: answer)


@pytest.mark.usefixtures("managed")
def test_appliances_come_as_text_in_the_order_of_their_names() -> None:
    [dns, web] = client.appliances()
    assert (dns.name, web.name) == ("dns", "web")
    assert (dns.reason, dns.addresses, dns.restart_pending) == ("grün", ("10.88.0.2",), True)
    assert client.appliance("web") == web


@pytest.mark.usefixtures("managed")
def test_an_appliance_that_is_not_there() -> None:
    with pytest.raises(ApplianceError, match="There is no appliance “ntp”") as caught:
        client.appliance("ntp")
    assert caught.value.problem is Problem.NOT_FOUND


class BusError(Exception):
    """As pystemd's DBusError looks."""

    def __init__(self, name: bytes, message: bytes, number: int) -> None:
        super().__init__(name, message)
        self.err_name, self.err_message, self.errno = name, message, number


@pytest.mark.parametrize(
    ("name", "number", "problem"),
    [
        # sd-bus-errors(3): what is not in its table is EIO.
        *((f"org.appliance1.Error.{problem}", errno.EIO, problem) for problem in Problem),
        ("org.freedesktop.DBus.Error.AccessDenied", errno.EACCES, Problem.ACCESS_DENIED),
        ("org.freedesktop.DBus.Error.ServiceUnknown", errno.EHOSTUNREACH, Problem.UNAVAILABLE),
        ("org.freedesktop.DBus.Error.NoReply", errno.ETIMEDOUT, Problem.UNAVAILABLE),
        ("org.appliance1.Error.OfALaterVersion", errno.EIO, Problem.FAILED),
    ],
)
def test_errors(name: str, number: int, problem: Problem) -> None:
    error = client._translated(BusError(name.encode(), b"It is so.", -number))
    assert error.problem is problem
    assert "It is so." in str(error)
