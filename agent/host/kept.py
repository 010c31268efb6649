"""Keeps the last configuration that was found valid, in /var/lib/appliance/configuration.json.

An administrator's half-finished edit must not cost the host its appliances at the next boot: the agent then
starts from this copy, and says so. Bytes are written as Latin-1 text, which has a character for each.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.config.tree import ConfigurationFiles
from agent.util.files import ensure_file

VERSION = 1
_log = logging.getLogger(__name__)

ApplianceFiles = Mapping[str, Mapping[str, bytes]]


def keep_configuration(path: Path, files: ConfigurationFiles, appliance_files: ApplianceFiles) -> bool:
    """Keep both; whether they differ from what was kept. Readable by root only, as the files handed to
    guests may be."""
    content = {
        "version": VERSION,
        "agent": to_text(files.agent),
        "networks": to_text(files.networks),
        "appliances": to_text(files.appliances),
        "files": {name: to_text(contents) for name, contents in appliance_files.items()},
    }
    return ensure_file(path, json.dumps(content) + "\n", mode=0o600)


def kept_configuration(path: Path) -> tuple[ConfigurationFiles, ApplianceFiles] | None:
    """What was kept; None where there is nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        files = ConfigurationFiles(
            agent=to_bytes(content["agent"]),
            networks=to_bytes(content["networks"]),
            appliances=to_bytes(content["appliances"]),
        )
        return files, {name: to_bytes(contents) for name, contents in content["files"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("%s cannot be read (%s), ignoring", path, error)
        return None


def to_text(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Bytes as text that JSON can have."""
    return {name: content.decode("latin-1") for name, content in contents.items()}


def to_bytes(contents: Mapping[str, Any]) -> dict[str, bytes]:
    """What `to_text` made text of; ValueError and the like for anything else."""
    return {str(name): str(text).encode("latin-1") for name, text in contents.items()}
