"""Keeps the configurations that an appliance runs with, or may go back to.

    /var/lib/appliance/appliances/NAME/generations/ID      0600: what is handed to guests may be secret

One JSON document each, see agent.model.generation. Bytes are written as Latin-1 text, which has a character
for each.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from agent.host.kept import to_bytes, to_text
from agent.model.errors import HostError, Problem
from agent.model.generation import Generation
from agent.model.paths import Paths
from agent.util.files import ensure_file, explain_errors

VERSION = 1


class Generations:
    """Generations by appliance; blocking."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def read(self, appliance: str, generation: str) -> Generation:
        """What was kept; HostError where there is nothing of that name, or it is not what it was."""
        path = self._paths.generations(appliance) / generation
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, not {VERSION}")
            kept = Generation(content["settings"].encode("latin-1"), to_bytes(content["files"]))
            if kept.id != generation:
                raise ValueError("it has another content than its name says")
        except FileNotFoundError as error:
            raise HostError(f"{path} is gone.", problem=Problem.NOT_FOUND) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise HostError(f"{path} cannot be read: {error!r}.", problem=Problem.NOT_SUPPORTED) from error
        return kept

    def write(self, appliance: str, generation: Generation) -> bool:
        """Keep it, durably; whether it is new. HostError where there is no space for it."""
        directory = self._paths.generations(appliance)
        content = {
            "version": VERSION,
            "settings": generation.settings.decode("latin-1"),
            "files": to_text(generation.files),
        }
        with explain_errors(f"keeping the configuration of {appliance}"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return ensure_file(directory / generation.id, json.dumps(content) + "\n", mode=0o600)

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        """Remove all that are not in `but`."""
        with explain_errors(f"removing configurations of {appliance}"):
            for path in self._paths.generations(appliance).glob("*"):
                if path.name not in but:
                    path.unlink(missing_ok=True)
