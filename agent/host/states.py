"""Keeps what is remembered of an appliance in /var/lib/appliance/appliances/NAME/state: one JSON document.

Every write replaces the file as a whole and is durable when it returns: agent.plan.swap relies on that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agent.model.data import DataKind, DataPhase, DataWork
from agent.model.errors import HostError, Problem
from agent.model.generation import Held
from agent.model.image import Digest
from agent.model.paths import Paths
from agent.model.swap import (
    ApplianceState,
    HistoryEntry,
    ImageTitle,
    Phase,
    Quarantined,
    Result,
    Swap,
)
from agent.util.files import ensure_file

VERSION = 1


class States:
    """States by appliance; blocking."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def names(self) -> list[str]:
        """Appliances of which something is remembered, configured or not."""
        return sorted(path.parent.name for path in self._paths.state.glob("appliances/*/state"))

    def read(self, appliance: str) -> ApplianceState:
        """What is remembered; nothing where there is no file. HostError where it cannot be understood."""
        path = self._paths.appliance_record(appliance)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, not {VERSION}")
            return _state(content)
        except FileNotFoundError:
            return ApplianceState()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise HostError(
                f"{path} cannot be read: {error!r}.",
                problem=Problem.NOT_SUPPORTED,
                remedy="Without this file the appliance starts with the image its configuration names.",
            ) from error

    def write(self, appliance: str, state: ApplianceState) -> bool:
        """Keep it; whether it differs from what was kept."""
        content = {"version": VERSION, **_plain(asdict(state))}
        return ensure_file(self._paths.appliance_record(appliance), json.dumps(content, indent=2) + "\n")


def _plain(value: Any) -> Any:
    """A value of asdict() as JSON has it: digests, which are mappings with their digits only, become
    text."""
    if isinstance(value, dict):
        return (
            f"sha256:{value['hex']}" if value.keys() == {"hex"} else {k: _plain(v) for k, v in value.items()}
        )
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _state(content: Mapping[str, Any]) -> ApplianceState:
    return ApplianceState(
        image=_digest(content["image"]) if content["image"] else None,
        wanted=str(content["wanted"]),
        generation=str(content["generation"]),
        held=Held(**content["held"]) if content["held"] else None,
        data_format=int(content["data_format"]),
        swaps=int(content["swaps"]),
        swap=_swap(content["swap"]) if content["swap"] else None,
        failure=str(content["failure"]),
        history=tuple(map(_entry, content["history"])),
        quarantine=tuple(map(_quarantined, content["quarantine"])),
        work=_work(content["work"]) if content["work"] else None,
    )


def _digest(text: str) -> Digest:
    digest = Digest.parse(text)
    if digest is None:
        raise ValueError(f"“{text}” is no digest")
    return digest


def _title(content: Mapping[str, Any]) -> ImageTitle:
    return ImageTitle(_digest(content["digest"]), str(content["reference"]))


def _swap(content: Mapping[str, Any]) -> Swap:
    titles = {"old": _title(content["old"]), "new": _title(content["new"])}
    return Swap(**{**content, **titles, "phase": Phase(content["phase"])})


def _work(content: Mapping[str, Any]) -> DataWork:
    return DataWork(**{**content, "kind": DataKind(content["kind"]), "phase": DataPhase(content["phase"])})


def _entry(content: Mapping[str, Any]) -> HistoryEntry:
    titles = {"old": _title(content["old"]), "new": _title(content["new"])}
    return HistoryEntry(**{**content, **titles, "result": Result(content["result"])})


def _quarantined(content: Mapping[str, Any]) -> Quarantined:
    return Quarantined(**{**content, "image": _title(content["image"])})
