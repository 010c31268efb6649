"""Native journal entries: structured fields, and MESSAGE_IDs that conf/catalog/appliance.catalog
explains."""

from __future__ import annotations

import logging
import os
from enum import Enum

from agent.model.names import unit_of
from agent.util.lean import skip_init

skip_init("pystemd")
from pystemd.journal import sendv  # noqa: E402


class Event(Enum):
    """Things an administrator may want to be told of. The value is the MESSAGE_ID; never reuse one."""

    STARTING = "e280ff6b9bee4c179182ccf8e14d69bb"
    HEALTHY = "e952c0c0f2bb43058a5a259c0583fffd"
    DEGRADED = "0f198cc2fd6041f3b82c28907c2c10a8"
    FAILED = "7248e69df4754567a18473e1588c12d2"
    STOPPED = "a005ff1b10bf48898b10785d1d369c09"
    APPLIED = "1c4e058c60d54495bbd3d0321c411dd2"
    REFUSED = "f0ae636f3bee46bb81b61fb0664c3272"
    RESTORED = "0fb3077a7fe944d7b9dd415e404d5a8c"
    SWAP_COMMITTED = "303a708f21aa417c8a2aa460d8e09d27"
    SWAP_REFUSED = "937098ffff8841bc959ddf727bd2eb6e"
    SWAP_ROLLED_BACK = "36ee248b43a44383b90fbe647ca97f9b"
    SWAP_FAILED = "d68668c25b2a4a99a12a8f6c6d23d799"
    RECONFIGURED = "7e05d108f20e4d96830e4de6ac675b23"
    RECONFIGURATION_REFUSED = "2d87751bd87c41308afef8cd1116c692"
    RECONFIGURATION_UNDONE = "b5aec7b26edf462d9815436e4a3bd3ea"
    SNAPSHOT_TAKEN = "2c50d302a49c4f829d28fbe2c9c01457"
    DATA_RESTORED = "87c65463c6874471ac8767118f7385a4"
    RESTORE_FAILED = "ff0caa13ec9641008b9709989003bf33"
    UPDATE_AVAILABLE = "f19d3eb2beec4565a5f8afdd7e163d67"
    UPDATE_REFUSED = "8fa02cdd9f49487f90fab33897c5f08b"


_PRIORITIES = {
    Event.DEGRADED: 4,
    Event.FAILED: 3,
    Event.REFUSED: 3,
    Event.RESTORED: 4,
    Event.SWAP_REFUSED: 4,
    Event.SWAP_ROLLED_BACK: 3,
    Event.SWAP_FAILED: 2,
    Event.RECONFIGURATION_REFUSED: 3,
    Event.RECONFIGURATION_UNDONE: 3,
    Event.RESTORE_FAILED: 3,
    Event.UPDATE_REFUSED: 4,
}
_NOTICE = 5


def log_event(event: Event, message: str, *, appliance: str = "", **fields: str) -> None:
    """Write one event. With `appliance` it stands in the log of that appliance's unit as well (journalctl
    -u)."""
    entry = {f"APPLIANCE_{name.upper()}": value for name, value in fields.items() if value}
    if appliance:
        entry |= {"APPLIANCE": appliance, "OBJECT_SYSTEMD_UNIT": unit_of(appliance)}
    sendv(
        MESSAGE=message,
        MESSAGE_ID=event.value,
        PRIORITY=str(_PRIORITIES.get(event, _NOTICE)),
        SYSLOG_IDENTIFIER="appliance-agent",
        APPLIANCE_EVENT=event.name.lower(),
        **entry,
    )


class JournalHandler(logging.Handler):
    """Python's log records as journal entries, with the place in the code."""

    _PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        priority = next((number for level, number in self._PRIORITIES if record.levelno >= level), 7)
        sendv(
            MESSAGE=self.format(record),
            PRIORITY=str(priority),
            SYSLOG_IDENTIFIER="appliance-agent",
            CODE_FILE=record.pathname,
            CODE_LINE=str(record.lineno),
            CODE_FUNC=record.funcName,
        )


def set_up_logging() -> None:
    """To the journal where systemd connected us to it (sd_journal_stream_fd(3)), else to standard error."""
    handler = JournalHandler() if "JOURNAL_STREAM" in os.environ else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
