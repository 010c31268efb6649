"""Every error this program raises on purpose.

    ApplianceError              carries a Problem: D-Bus error name, exit status and journal field
    ├── ConfigurationError      everything that is wrong with the configuration, all at once
    ├── ImageError              an image, recipe or the store's content is not as it must be
    ├── HostError               the host refused: a command, netlink, a full disk
    └── UnitError               systemd refused a unit or its job failed

Exceptions neither log nor exit: the D-Bus faces and the command line turn them into answers, each in one
place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Problem(StrEnum):
    """What kind of trouble it is, in one word; `org.appliance1.Error.<value>` on the bus."""

    INVALID_CONFIGURATION = "InvalidConfiguration"
    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    INVALID_IMAGE = "InvalidImage"
    INVALID_ARCHIVE = "InvalidArchive"
    IN_USE = "InUse"
    BUSY = "Busy"
    NOT_SUPPORTED = "NotSupported"
    ACCESS_DENIED = "AccessDenied"
    NO_SPACE = "NoSpace"
    TIMED_OUT = "TimedOut"
    UNAVAILABLE = "Unavailable"
    FAILED = "Failed"

    @property
    def exit_status(self) -> int:
        """Exit status of the command line for this problem; documented in appliancectl(1)."""
        return _EXIT_STATUS[self]


_EXIT_STATUS = {
    Problem.FAILED: 1,
    Problem.INVALID_CONFIGURATION: 3,
    Problem.NOT_FOUND: 4,
    Problem.ALREADY_EXISTS: 5,
    Problem.INVALID_IMAGE: 6,
    Problem.INVALID_ARCHIVE: 14,
    Problem.IN_USE: 7,
    Problem.BUSY: 8,
    Problem.NOT_SUPPORTED: 9,
    Problem.ACCESS_DENIED: 10,
    Problem.NO_SPACE: 11,
    Problem.TIMED_OUT: 12,
    Problem.UNAVAILABLE: 13,
}


class ApplianceError(Exception):
    """Base of all; `remedy` says what the administrator can do next, as a sentence."""

    def __init__(self, message: str, *, problem: Problem = Problem.FAILED, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip() if self.remedy else self.message


class ImageError(ApplianceError):
    """An image, its manifest, a recipe or the store is not as it must be."""

    def __init__(self, message: str, *, problem: Problem = Problem.INVALID_IMAGE, remedy: str = "") -> None:
        super().__init__(message, problem=problem, remedy=remedy)


class HostError(ApplianceError):
    """The host did not do what was asked of it."""


class UnitError(ApplianceError):
    """systemd refused a request, or a job did not end as wished."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong in a configuration file; lines and columns count from 1, 0 means the whole
    file."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f":{self.line}:{self.column}" if self.line else ""
        return _on_one_line(f"{self.path}{place}: {self.message}")


def _on_one_line(text: str) -> str:
    """Text with control characters escaped: what is quoted from a file must not forge lines, nor move a
    terminal's cursor."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class ConfigurationError(ApplianceError):
    """The configuration cannot be used; nothing was changed."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = tuple(sorted(set(findings)))
        super().__init__("\n".join(map(str, self.findings)), problem=Problem.INVALID_CONFIGURATION)
