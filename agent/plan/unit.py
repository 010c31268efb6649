"""An ordered model of systemd unit files, so that no value can become a second line, a section or a
specifier.

The syntax is that of systemd.syntax(7).
"""

from __future__ import annotations

import re

_SECTION = re.compile(r"[A-Z][A-Za-z-]*")
_KEY = re.compile(r"[A-Z][A-Za-z0-9]*")


def escape(text: str) -> str:
    """Make `text` mean itself in a unit file: `%` starts a specifier, a final `\\` would join lines.

    Raises ValueError for what no escaping carries: line breaks and other control characters.
    """
    if not text.isprintable():
        raise ValueError(f"{text!r} cannot stand in a unit file")
    return text.replace("\\", "\\\\").replace("%", "%%")


class UnitFile:
    """Sections in the order they were first named, assignments in the order they were made."""

    def __init__(self, *comments: str) -> None:
        self._comments = [escape(comment) for comment in comments]
        self._sections: dict[str, list[str]] = {}

    def add(self, section: str, key: str, value: str) -> None:
        """Append `key=value`; an empty value resets a list, as in any unit file."""
        if not _SECTION.fullmatch(section) or not _KEY.fullmatch(key):
            raise ValueError(f"[{section}] {key}= is no assignment of a unit file")
        self._sections.setdefault(section, []).append(f"{key}={escape(value)}")

    def render(self) -> str:
        """The text of the file."""
        blocks = ["".join(f"# {comment}\n" for comment in self._comments)] if self._comments else []
        for section, lines in self._sections.items():
            blocks.append(f"[{section}]\n" + "".join(f"{line}\n" for line in lines))
        return "\n".join(blocks)
