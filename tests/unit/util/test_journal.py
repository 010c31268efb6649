"""Journal entries as journald gets them, and the catalog that explains them."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from agent.util import journal
from agent.util.journal import Event, JournalHandler, log_event, set_up_logging

CATALOG = Path(__file__).parents[3] / "conf/catalog/appliance.catalog"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    monkeypatch.setattr(journal, "sendv", lambda **fields: entries.append(fields))
    return entries


def test_an_event_of_an_appliance_stands_in_its_unit_s_log(sent: list[dict[str, str]]) -> None:
    log_event(Event.FAILED, "Appliance dns failed.", appliance="dns", reason="it died", image="")
    assert sent == [
        {
            "MESSAGE": "Appliance dns failed.",
            "MESSAGE_ID": Event.FAILED.value,
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "appliance-agent",
            "APPLIANCE_EVENT": "failed",
            "APPLIANCE": "dns",
            "OBJECT_SYSTEMD_UNIT": "appliance@dns.service",
            "APPLIANCE_REASON": "it died",
        }
    ]


def test_an_event_of_the_agent_itself(sent: list[dict[str, str]]) -> None:
    log_event(Event.APPLIED, "Configuration applied.")
    assert sent[0]["PRIORITY"] == "5"
    assert "APPLIANCE" not in sent[0]


def test_the_catalog_explains_every_event() -> None:
    explained = re.findall(r"^-- ([0-9a-f]{32})$", CATALOG.read_text("utf-8"), re.MULTILINE)
    assert sorted(explained) == sorted(event.value for event in Event)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, "2"),
        (logging.ERROR, "3"),
        (logging.WARNING, "4"),
        (logging.INFO, "6"),
        (logging.DEBUG, "7"),
    ],
)
def test_levels_become_priorities(sent: list[dict[str, str]], level: int, priority: str) -> None:
    JournalHandler().handle(logging.LogRecord("x", level, "/p", 7, "it is %s", ("so",), None, "f"))
    assert sent == [
        {
            "MESSAGE": "it is so",
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": "appliance-agent",
            "CODE_FILE": "/p",
            "CODE_LINE": "7",
            "CODE_FUNC": "f",
        }
    ]


@pytest.mark.parametrize(("variable", "kind"), [("8:1", JournalHandler), ("", logging.StreamHandler)])
def test_where_logs_go(monkeypatch: pytest.MonkeyPatch, variable: str, kind: type[logging.Handler]) -> None:
    given: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: given.extend(options["handlers"]))
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if variable:
        monkeypatch.setenv("JOURNAL_STREAM", variable)
    set_up_logging()
    assert [type(handler) for handler in given] == [kind]
