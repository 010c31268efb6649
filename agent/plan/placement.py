"""Which core each guest runs on.

A guest is one CPU wide, and pinning it to a core is worth a factor of five and more in packets per second
(docs/architecture.md), so every guest is pinned: here it is decided to which core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence


def place(appliances: Collection[str], previous: Mapping[str, int], cores: Sequence[int]) -> dict[str, int]:
    """A core for every appliance: the one it had, else the one with the fewest guests, lowest number
    first."""
    placed = {name: previous[name] for name in appliances if previous.get(name) in cores}
    load = Counter(placed.values())
    for name in sorted(set(appliances) - set(placed)):
        core = min(cores, key=lambda core: (load[core], core))
        placed[name] = core
        load[core] += 1
    return placed
