"""What the benchmarks found: rows for a table and for JSON, medians with their spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

PLAIN = ("plain unit", "namespaces", "ip(8)")
"""Candidates that are not ours: what others are compared with."""


@dataclass(frozen=True)
class Row:
    """One figure of one candidate. `promise` is what SPECIFICATION.md says, '' where it says nothing."""

    what: str
    candidate: str
    unit: str
    values: tuple[float, ...]
    promise: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Report:
    """Rows in the order they were measured."""

    rows: list[Row] = field(default_factory=list)

    def add(self, what: str, candidate: str, unit: str, values: list[float], *, promise: str = "") -> Row:
        row = Row(what, candidate, unit, tuple(values), promise)
        self.rows.append(row)
        return row

    def lines(self) -> list[str]:
        """The table, figure by figure; a ratio stands where something plain was measured beside it."""
        plain = {row.what: row.median for row in self.rows if row.candidate in PLAIN}
        figures = list(dict.fromkeys(row.what for row in self.rows))
        lines = [
            f"{'figure':36} {'candidate':13} {'median':>9} {'min':>9} {'max':>9} {'unit':8} {'ratio':>6}"
        ]
        for row in sorted(self.rows, key=lambda row: figures.index(row.what)):
            base = plain.get(row.what)
            ratio = f"{row.median / base:.2f}" if base else ""
            spread = f"{row.median:9.2f} {min(row.values):9.2f} {max(row.values):9.2f}"
            lines.append(
                f"{row.what:36} {row.candidate:13} {spread} {row.unit:8} {ratio:>6}  {row.promise}".rstrip()
            )
        return lines

    def machine(self) -> str:
        """The machine, in a line."""
        model = "unknown processor"
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
        return f"{os.cpu_count()} × {model}, {platform.release()}; load {os.getloadavg()[0]:.1f}"

    def write(self, path: Path) -> None:
        """All values as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": self.machine(),
            "rows": [asdict(row) | {"median": row.median} for row in self.rows],
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
