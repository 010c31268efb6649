"""Edits an administrator's file in place, one key of the top level, and leaves everything else as it is."""

from __future__ import annotations

import re

_VALUE = r"[^\s#][^\s]*"


def with_key(text: str, key: str, value: str) -> str:
    """The text with `key: value` at its top level: in the line in which it is, or in a new one at the end.

    Nothing is parsed here: whoever calls it reads the result, and sees whether it is what was meant. (A key
    in the braces of a flow mapping, for instance, is not found.)
    """
    line = rf"^{re.escape(key)}:[ \t]+(?P<value>{_VALUE})[ \t]*(?:#.*)?$"
    match = re.search(line, text, re.MULTILINE)
    if match:
        return f"{text[: match.start('value')]}{value}{text[match.end('value') :]}"
    newline = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{newline}{key}: {value}\n"
