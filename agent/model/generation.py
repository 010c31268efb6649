"""Generations: the configuration of an appliance as it was at one time.

What the administrator writes is all there is of it: /etc/appliance/appliances/NAME.yaml and the files below
/etc/appliance/config/NAME. A generation is known by its content, so that the same configuration is the same
generation, whenever and by whomever it is written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Generation:
    """`settings` is the content of the YAML file, `files` what is handed to the guest, by relative path."""

    settings: bytes
    files: Mapping[str, bytes]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that follow from the content."""
        digest = hashlib.sha256(self.settings)
        for path, content in sorted(self.files.items()):
            name = path.encode(errors="surrogateescape")
            # Lengths stand before contents: else two files could read like one.
            digest.update(b"%d %d " % (len(name), len(content)) + name + content)
        return digest.hexdigest()[:ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Held:
    """A generation that is not in force although the administrator's files say so, and why.

    With `for_good` it is not tried again until somebody asks for that; otherwise the next `apply` does.
    """

    generation: str
    reason: str
    for_good: bool
