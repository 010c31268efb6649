"""The only module that knows dbus-next (0.2.3): a connection with the library's gaps closed.

* It is imported piecewise: in full it brings GLib along where that is installed.
* Calls time out, and end with an error when the connection does (the library's never return).
* Match rules are added as text, because its own lack arg0 and path_namespace.
* Signals are delivered only if a match rule asked for them: anybody may send one to this connection alone,
  with any path and interface.
* Requests are answered here and not by its service classes: those hide the sender, answer surprises with a
  traceback, raise a DBusError into the event loop as well, and never reply when a handler is cancelled.
* Closing the connection waits until what was sent is on its way, and closes the socket.

dbus-fast is the library's maintained fork with the same API; it would be this import that changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent.model.errors import ApplianceError, HostError, Problem
from agent.util.lean import skip_init

skip_init("dbus_next")
from dbus_next.aio.message_bus import MessageBus  # noqa: E402
from dbus_next.constants import MessageFlag, MessageType, NameFlag, RequestNameReply  # noqa: E402
from dbus_next.errors import AuthError, DBusError  # noqa: E402
from dbus_next.message import Message  # noqa: E402
from dbus_next.signature import Variant  # noqa: E402

__all__ = ["Bus", "Reply", "Request", "RequestError", "Signal", "Variant"]

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
CALL_TIMEOUT_S = 25.0  # the reference library's default
FLUSH_TIMEOUT_S = 1.0
_DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
_log = logging.getLogger(__name__)

_PROBLEMS = {
    "org.freedesktop.DBus.Error.AccessDenied": Problem.ACCESS_DENIED,
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": Problem.ACCESS_DENIED,
    "org.freedesktop.DBus.Error.ServiceUnknown": Problem.UNAVAILABLE,
    "org.freedesktop.DBus.Error.NoReply": Problem.TIMED_OUT,
    "org.freedesktop.systemd1.NoSuchUnit": Problem.NOT_FOUND,
    "org.freedesktop.systemd1.NoSuchProcess": Problem.NOT_FOUND,
    "org.freedesktop.systemd1.ShuttingDown": Problem.UNAVAILABLE,
    "org.freedesktop.systemd1.TransactionIsDestructive": Problem.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal as received; bodies of variants hold `Variant`, use `.value`."""

    sender: str
    path: str
    interface: str
    member: str
    body: list[Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A method call to this process. `sender` is a unique name the bus vouches for."""

    sender: str
    path: str
    interface: str
    member: str
    signature: str
    body: list[Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer a Request with."""

    signature: str = ""
    body: tuple[Any, ...] = ()


class RequestError(Exception):
    """An error reply under a name of the caller's choice, such as
    org.freedesktop.DBus.Error.UnknownMethod."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


_Handler = Callable[[Request], Awaitable[Reply] | None]


class Bus:
    """One connection to a bus, the system's unless `address` is another. Loss of it ends `wait_closed`;
    there is no reconnecting."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._signal_handlers: list[Callable[[Signal], None]] = []
        self._request_handler: _Handler | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._unsent: set[asyncio.Future[None]] = set()
        # The public wait_for_disconnect() cancels this future along with the task that waits, and with it
        # all others.
        self._disconnected: asyncio.Future[None] = bus._disconnect_future  # noqa: SLF001
        bus.add_message_handler(self._on_message)

    @classmethod
    async def connect(cls, address: str = SYSTEM_BUS) -> Bus:
        """Connect and say hello; HostError where there is no bus."""
        try:
            bus = MessageBus(bus_address=address)
            try:
                return cls(await bus.connect())
            except BaseException:
                _close_socket(bus)
                raise
        except (OSError, EOFError, DBusError, AuthError) as error:
            raise HostError(
                f"Cannot connect to the system bus: {error}", problem=Problem.UNAVAILABLE
            ) from error

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, then raise HostError: there is nothing to be done without
        it."""
        try:
            await asyncio.shield(self._disconnected)
        except (OSError, EOFError) as error:
            raise HostError(f"The system bus went away: {error}", problem=Problem.UNAVAILABLE) from error
        raise HostError("The system bus went away.", problem=Problem.UNAVAILABLE)

    async def close(self) -> None:
        """Answer the requests under way, then disconnect."""
        for task in self._answers:
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)
        if self._unsent:
            await asyncio.wait(self._unsent, timeout=FLUSH_TIMEOUT_S)
        if not self._disconnected.done():
            self._bus.disconnect()
            await asyncio.wait([self._disconnected])
        _look_at(self._disconnected)
        _close_socket(self._bus)

    async def call(
        self,
        destination: str,
        path: str,
        member: str,
        *arguments: Any,
        signature: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> list[Any]:
        """Call `INTERFACE.METHOD` (the dotted `member`) and return the reply's body; HostError for every
        failure."""
        interface, _, method = member.rpartition(".")
        if self._disconnected.done():
            raise _lost(member)
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=method,
            signature=signature,
            body=list(arguments),
        )
        reply = asyncio.ensure_future(self._bus.call(message))
        try:
            ends: set[asyncio.Future[Any]] = {self._disconnected, reply}
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if reply.done():
                return _body(member, reply.result())
            if self._disconnected.done():
                raise _lost(member)
            raise HostError(f"{member}: no answer", problem=Problem.TIMED_OUT)
        except (OSError, EOFError) as error:
            raise _lost(member) from error
        finally:
            reply.cancel()

    async def subscribe(self, rule: str, handler: Callable[[Signal], None]) -> None:
        """Have signals that match `rule` delivered to `handler`, which gets those of other rules too and has
        to look."""
        self._signal_handlers.append(handler)
        await self.call(*_DRIVER, "org.freedesktop.DBus.AddMatch", f"type='signal',{rule}", signature="s")

    async def own(self, name: str) -> None:
        """Take a well-known name; HostError where another process has it."""
        flags = NameFlag.DO_NOT_QUEUE.value
        [reply] = await self.call(*_DRIVER, "org.freedesktop.DBus.RequestName", name, flags, signature="su")
        if reply not in {RequestNameReply.PRIMARY_OWNER.value, RequestNameReply.ALREADY_OWNER.value}:
            raise HostError(
                f"Another process owns {name} on the bus; is the agent running already?",
                problem=Problem.BUSY,
            )

    def serve(self, handler: _Handler) -> None:
        """Answer requests with what `handler` returns; where it returns None, the library's defaults apply
        (Peer)."""
        self._request_handler = handler

    def emit(self, path: str, member: str, signature: str, *body: Any) -> None:
        """Send the signal `INTERFACE.MEMBER` to whoever listens."""
        interface, _, name = member.rpartition(".")
        self._send(Message.new_signal(path, interface, name, signature, list(body)))

    def _send(self, message: Message) -> None:
        """Nobody waits for it to be written: if that fails, the connection is lost."""
        if not self._disconnected.done():
            sent = self._bus.send(message)
            self._unsent.add(sent)
            sent.add_done_callback(self._unsent.discard)
            sent.add_done_callback(_look_at)

    def _on_message(self, message: Message) -> bool:
        if message.message_type is MessageType.SIGNAL and not message.destination:
            signal = Signal(message.sender, message.path, message.interface, message.member, message.body)
            for handler in self._signal_handlers:
                handler(signal)
        elif message.message_type is MessageType.METHOD_CALL and self._request_handler:
            request = Request(
                sender=message.sender or "",
                path=message.path,
                interface=message.interface or "",
                member=message.member,
                signature=message.signature,
                body=message.body,
            )
            answer = self._request_handler(request)
            if answer is not None:
                task = asyncio.ensure_future(self._answer(message, answer))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
                return True
        return False

    async def _answer(self, message: Message, answer: Awaitable[Reply]) -> None:
        try:
            reply = await answer
            self._reply(message, Message.new_method_return(message, reply.signature, list(reply.body)))
        except RequestError as error:
            self._refuse(message, error.name, str(error))
        except ApplianceError as error:
            self._refuse(message, f"org.appliance1.Error.{error.problem}", str(error))
        except asyncio.CancelledError:
            self._refuse(message, "org.freedesktop.DBus.Error.NoReply", "The agent is stopping.")
        except Exception:  # noqa: BLE001 (one of the two places: every surprise is an answer)
            _log.exception("%s.%s failed", message.interface, message.member)
            text = "Internal error; the agent's journal has the details."
            self._refuse(message, "org.freedesktop.DBus.Error.Failed", text)

    def _refuse(self, message: Message, name: str, text: str) -> None:
        # The bus would disconnect a sender of text that is no UTF-8 or has a NUL.
        text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
        self._reply(message, Message.new_error(message, name, text))

    def _reply(self, message: Message, reply: Message) -> None:
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._send(reply)


def _look_at(future: asyncio.Future[None]) -> None:
    """Have seen the error in a future that nobody waits for; asyncio would complain that nobody has."""
    if not future.cancelled():
        future.exception()


def _close_socket(bus: MessageBus) -> None:
    """The library leaves this to the garbage collector."""
    bus._stream.close()  # noqa: SLF001
    bus._sock.close()  # noqa: SLF001


def _lost(member: str) -> HostError:
    return HostError(f"{member}: the bus went away", problem=Problem.UNAVAILABLE)


def _body(member: str, reply: Message | None) -> list[Any]:
    if reply is None:
        return []
    if reply.message_type is MessageType.ERROR:
        text = str(reply.body[0]) if reply.body else reply.error_name
        raise HostError(f"{member}: {text}", problem=_PROBLEMS.get(reply.error_name, Problem.FAILED))
    body: list[Any] = reply.body
    return body
