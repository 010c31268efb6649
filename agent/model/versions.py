"""The order of image versions: as dpkg orders versions (deb-version(7)), without an epoch.

`~` sorts before everything, even the end of a part, so `4.9~rc1` is older than `4.9`.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"([^0-9]*)([0-9]*)")

VersionKey = tuple[tuple[tuple[int, ...], int], ...]


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _part_key(part: str) -> VersionKey:
    """Alternating text and numbers; 0 ends each text, so that an end sorts after `~` and before anything
    else."""
    tokens = [token for token in _TOKEN.findall(part) if any(token)]
    return tuple(((*map(_weight, text), 0), int(digits or "0")) for text, digits in (*tokens, ("", "")))


def version_key(version: str) -> tuple[VersionKey, VersionKey]:
    """A sort key: upstream version first, then what follows the last dash (`0` where there is none)."""
    upstream, _, revision = version.rpartition("-") if "-" in version else (version, "", "0")
    return _part_key(upstream), _part_key(revision)
