"""The connection, with the library's gaps closed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from pathlib import Path

import pytest

from agent.host.bus import Bus, Reply, Request, RequestError, Signal, Variant
from agent.model.errors import ApplianceError, HostError, Problem
from agent.util.tasks import completed
from tests.bus.conftest import MessageBus
from tests.fakes.bus import Message, MessageFlag, MessageType, busctl, connected, settled, unique_name

PATH = "/org/example"
INTERFACE = "org.example.Tests"


async def call(
    client: Bus, server: Bus, member: str, *arguments: object, signature: str = "", timeout_s: float = 5.0
) -> list[object]:
    """Call a method of a connection by its unique name."""
    return await client.call(
        unique_name(server),
        PATH,
        f"{INTERFACE}.{member}",
        *arguments,
        signature=signature,
        timeout_s=timeout_s,
    )


def echo(request: Request) -> Awaitable[Reply]:
    return completed(lambda: Reply(request.signature, tuple(request.body)))


# --- calls


async def test_arguments_and_results_of_many_types(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        server.serve(echo)
        body = ["text", 7, True, ["a", "b"], {"k": Variant("u", 5)}, ["/o", 1 << 60]]
        assert await call(client, server, "Echo", *body, signature="subasa{sv}(ot)") == body


async def test_the_sender_is_who_the_bus_says(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        server.serve(lambda request: completed(lambda: Reply("s", (request.sender,))))
        assert await call(client, server, "Who") == [unique_name(client)]


async def test_a_call_that_is_not_answered_in_time(address: str) -> None:
    async with connected(address) as client, connected(address) as server:

        async def never(_request: Request) -> Reply:
            await asyncio.Event().wait()
            return Reply()

        server.serve(never)
        with pytest.raises(HostError, match=r"org\.example\.Tests\.Wait: no answer") as caught:
            await call(client, server, "Wait", timeout_s=0.05)
        assert caught.value.problem is Problem.TIMED_OUT


async def test_an_answer_that_comes_too_late_disturbs_nothing(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        go = asyncio.Event()

        async def late(request: Request) -> Reply:
            await go.wait()
            return Reply("s", (request.member,))

        server.serve(late)
        with pytest.raises(HostError, match="no answer"):
            await call(client, server, "First", timeout_s=0.05)
        go.set()
        assert await call(client, server, "Second") == ["Second"]


async def test_a_caller_that_gives_up_disturbs_nothing(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        server.serve(echo)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await call(client, server, "First")
        assert await call(client, server, "Second", "x", signature="s") == ["x"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("org.freedesktop.DBus.Error.AccessDenied", Problem.ACCESS_DENIED),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", Problem.ACCESS_DENIED),
        ("org.freedesktop.DBus.Error.NoReply", Problem.TIMED_OUT),
        ("org.freedesktop.systemd1.NoSuchUnit", Problem.NOT_FOUND),
        ("org.example.Error.Other", Problem.FAILED),
    ],
)
async def test_errors_become_problems(address: str, name: str, problem: Problem) -> None:
    def refuse(_request: Request) -> Awaitable[Reply]:
        def fail() -> Reply:
            raise RequestError(name, "It is so.")

        return completed(fail)

    async with connected(address) as client, connected(address) as server:
        server.serve(refuse)
        with pytest.raises(HostError, match=r"^org\.example\.Tests\.Do: It is so\.$") as caught:
            await call(client, server, "Do")
        assert caught.value.problem is problem


async def test_nobody_of_that_name(address: str) -> None:
    async with connected(address) as client:
        with pytest.raises(HostError) as caught:
            await client.call("org.example.Nobody", PATH, f"{INTERFACE}.Do")
        assert caught.value.problem is Problem.UNAVAILABLE


# --- being called


@pytest.mark.parametrize("problem", Problem)
async def test_problems_become_error_names(address: str, problem: Problem) -> None:
    def refuse(_request: Request) -> Awaitable[Reply]:
        def fail() -> Reply:
            raise ApplianceError("It is so.", problem=problem, remedy="Do this.")

        return completed(fail)

    async with connected(address) as server:
        server.serve(refuse)
        with pytest.raises(RuntimeError, match=r"It is so\. Do this\."):
            await busctl(address, "call", unique_name(server), PATH, INTERFACE, "Do")
        async with connected(address) as client:
            reply = await client._bus.call(Message(unique_name(server), PATH, INTERFACE, "Do"))
            assert reply is not None
            assert reply.error_name == f"org.appliance1.Error.{problem}"


@pytest.mark.parametrize(
    "fault",
    [ZeroDivisionError("secret"), KeyError("secret"), UnicodeEncodeError("utf-8", "\udcff", 0, 1, "secret")],
)
async def test_a_surprise_is_logged_here_and_says_nothing_there(
    address: str, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    def surprise(_request: Request) -> Awaitable[Reply]:
        def fail() -> Reply:
            raise fault

        return completed(fail)

    async with connected(address) as client, connected(address) as server:
        server.serve(surprise)
        with pytest.raises(HostError) as caught:
            await call(client, server, "Do")
        assert caught.value.message == (
            f"{INTERFACE}.Do: Internal error; the agent's journal has the details."
        )
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].levelno == logging.ERROR


@pytest.mark.parametrize(
    "reply",
    [Reply("u", ("text",)), Reply("s", ()), Reply("s", ("\udcff",)), Reply("(", ()), Reply("y", (1 << 20,))],
)
async def test_a_reply_that_cannot_be_sent_is_an_internal_error(
    address: str, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(address) as client, connected(address) as server:
        server.serve(lambda _request: completed(lambda: reply))
        with pytest.raises(HostError, match="Internal error"):
            await call(client, server, "Do")
        server.serve(echo)
        assert await call(client, server, "Do", "still here", signature="s") == ["still here"]
    assert caplog.records


async def test_text_that_no_message_can_hold_is_no_end_of_the_connection(address: str) -> None:
    def refuse(_request: Request) -> Awaitable[Reply]:
        def fail() -> Reply:
            raise ApplianceError("a\0b \udcff")

        return completed(fail)

    async with connected(address) as client, connected(address) as server:
        server.serve(refuse)
        with pytest.raises(HostError, match=r"a.*b"):
            await call(client, server, "Do")
        server.serve(echo)
        assert await call(client, server, "Do", 1, signature="u") == [1]


async def test_requests_are_answered_in_the_order_of_their_ends(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        go = asyncio.Event()

        async def slow_or_not(request: Request) -> Reply:
            if request.member == "Slow":
                await go.wait()
            return Reply("s", (request.member,))

        server.serve(slow_or_not)
        slow = asyncio.ensure_future(call(client, server, "Slow"))
        assert await call(client, server, "Fast") == ["Fast"]
        go.set()
        assert await slow == ["Slow"]


async def test_a_handler_that_is_cancelled_still_replies(address: str) -> None:
    async with connected(address) as client:
        server = await Bus.connect(address)
        started = asyncio.Event()

        async def wait(_request: Request) -> Reply:
            started.set()
            await asyncio.Event().wait()
            return Reply()

        server.serve(wait)
        waiting = asyncio.ensure_future(call(client, server, "Wait"))
        await started.wait()
        await server.close()
        with pytest.raises(HostError, match=r"The agent is stopping\.") as caught:
            await waiting
        assert caught.value.problem is Problem.TIMED_OUT


async def test_who_wants_no_reply_gets_none(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        seen: list[str] = []

        def handler(request: Request) -> Awaitable[Reply]:
            seen.append(request.member)
            return echo(request)

        server.serve(handler)
        silent = Message(unique_name(server), PATH, INTERFACE, "Silent", flags=MessageFlag.NO_REPLY_EXPECTED)
        received: list[Message] = []
        client._bus.add_message_handler(received.append)
        await client._bus.send(silent)
        await call(client, server, "Loud")
        assert seen == ["Silent", "Loud"]
        assert (
            len([message for message in received if message.message_type is MessageType.METHOD_RETURN]) == 1
        )


async def test_what_the_handler_leaves_is_answered_by_the_library(address: str) -> None:
    async with connected(address) as client, connected(address) as server:
        server.serve(lambda _request: None)
        await client.call(unique_name(server), PATH, "org.freedesktop.DBus.Peer.Ping")
        with pytest.raises(HostError):
            await call(client, server, "Unknown")


# --- signals


async def subscribed(bus: Bus, rule: str) -> list[Signal]:
    received: list[Signal] = []
    await bus.subscribe(rule, received.append)
    return received


async def test_a_signal_as_it_was_sent(address: str) -> None:
    async with connected(address) as listener, connected(address) as speaker:
        received = await subscribed(listener, f"interface='{INTERFACE}'")
        speaker.emit(PATH, f"{INTERFACE}.Happened", "sa{sv}", "x", {"k": Variant("u", 1)})
        await settled(speaker)
        await settled(listener)
        [signal] = received
        assert (signal.sender, signal.path, signal.interface, signal.member) == (
            unique_name(speaker),
            PATH,
            INTERFACE,
            "Happened",
        )
        assert (signal.body[0], signal.body[1]["k"].value) == ("x", 1)


async def test_a_rule_for_everything_below_a_path(address: str) -> None:
    async with connected(address) as listener, connected(address) as speaker:
        received = await subscribed(listener, "path_namespace='/org/example/unit'")
        for path in ("/org/example/unit/a", "/org/example/unit", "/org/example/units/b", "/org/example"):
            speaker.emit(path, f"{INTERFACE}.Happened", "")
        await settled(speaker)
        await settled(listener)
        assert [signal.path for signal in received] == ["/org/example/unit/a", "/org/example/unit"]


async def test_a_rule_for_one_sender(address: str) -> None:
    async with connected(address) as listener, connected(address) as right, connected(address) as wrong:
        received = await subscribed(listener, f"sender='{unique_name(right)}'")
        for speaker in (wrong, right):
            speaker.emit(PATH, f"{INTERFACE}.Happened", "")
            await settled(speaker)
        await settled(listener)
        assert [signal.sender for signal in received] == [unique_name(right)]


async def test_a_signal_that_was_sent_to_us_alone_is_ignored(address: str) -> None:
    """Anybody may send one whatever our match rules say, and name any path and interface in it."""
    async with connected(address) as listener, connected(address) as liar:
        received = await subscribed(listener, "sender='org.freedesktop.systemd1'")
        message = Message.new_signal(PATH, INTERFACE, "Happened")
        message.destination = unique_name(listener)
        await liar._bus.send(message)
        await settled(liar)
        await settled(listener)
        assert received == []


async def test_a_handler_that_fails_hears_the_next_signal(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(address) as listener, connected(address) as speaker:
        heard: list[str] = []

        def fail(signal: Signal) -> None:
            heard.append(signal.member)
            raise ZeroDivisionError

        await listener.subscribe(f"interface='{INTERFACE}'", fail)
        for member in ("First", "Second"):
            speaker.emit(PATH, f"{INTERFACE}.{member}", "")
        await settled(speaker)
        await settled(listener)
        assert heard == ["First", "Second"]
        assert "ZeroDivisionError" in caplog.text


async def test_a_rule_that_is_none(address: str) -> None:
    async with connected(address) as listener:
        with pytest.raises(HostError, match="AddMatch"):
            await listener.subscribe("nonsense", lambda _signal: None)


# --- names


async def test_one_owner_of_a_name(address: str) -> None:
    async with connected(address) as first, connected(address) as second:
        await first.own("org.example.Name")
        await first.own("org.example.Name")
        with pytest.raises(HostError, match="is the agent running already") as caught:
            await second.own("org.example.Name")
        assert caught.value.problem is Problem.BUSY
    async with connected(address) as third:
        await third.own("org.example.Name")


# --- the connection


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_no_bus(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="Cannot connect to the system bus") as caught:
        await Bus.connect(f"unix:path={tmp_path}/none")
    assert caught.value.problem is Problem.UNAVAILABLE


async def test_a_bus_that_refuses_us(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "bus"))
        server.listen()
        server.setblocking(False)

        async def refuse() -> None:
            peer, _ = await asyncio.get_running_loop().sock_accept(server)
            with peer:
                await asyncio.get_running_loop().sock_recv(peer, 999)
                await asyncio.get_running_loop().sock_sendall(peer, b"REJECTED\r\n")

        refusing = asyncio.ensure_future(refuse())
        with pytest.raises(HostError, match="Cannot connect to the system bus") as caught:
            await Bus.connect(f"unix:path={tmp_path}/bus")
        assert caught.value.problem is Problem.UNAVAILABLE
        await refusing


async def test_loss_of_the_bus_ends_every_call_under_way(mortal_bus: MessageBus) -> None:
    async with connected(mortal_bus.address) as client, connected(mortal_bus.address) as server:

        async def never(_request: Request) -> Reply:
            await asyncio.Event().wait()
            return Reply()

        server.serve(never)
        calls = [asyncio.ensure_future(call(client, server, "Wait")) for _ in range(3)]
        await settled(client)
        mortal_bus.stop()
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(ended, HostError)
            assert (ended.problem, "the bus went away" in str(ended)) == (Problem.UNAVAILABLE, True)


async def test_loss_of_the_bus_ends_waiting_for_it(mortal_bus: MessageBus) -> None:
    async with connected(mortal_bus.address) as client:
        first, second = (asyncio.ensure_future(client.wait_closed()) for _ in range(2))
        await settled(client)
        first.cancel()
        await asyncio.sleep(0)
        assert not second.done()
        mortal_bus.stop()
        with pytest.raises(HostError, match="The system bus went away") as caught:
            await second
        assert caught.value.problem is Problem.UNAVAILABLE
        with pytest.raises(HostError, match="The system bus went away"):
            await client.wait_closed()


async def test_calls_and_signals_after_the_loss(mortal_bus: MessageBus) -> None:
    async with connected(mortal_bus.address) as client:
        mortal_bus.stop()
        with pytest.raises(HostError, match="went away"):
            await client.wait_closed()
        for attempt in (
            settled(client),
            client.own("org.example.Name"),
            client.subscribe("", lambda _signal: None),
        ):
            with pytest.raises(HostError, match="the bus went away") as caught:
                await attempt
            assert caught.value.problem is Problem.UNAVAILABLE
        client.emit(PATH, f"{INTERFACE}.Happened", "")


async def test_closing_ends_calls_under_way(address: str) -> None:
    async with connected(address) as server:
        server.serve(echo)
        client = await Bus.connect(address)
        pending = asyncio.ensure_future(call(client, server, "Do"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(HostError, match="the bus went away"):
            await pending


async def test_closing_twice(address: str) -> None:
    async with connected(address) as client:
        await client.close()
