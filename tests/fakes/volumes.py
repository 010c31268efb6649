"""Data volumes and their snapshots in memory: what agent.host.snapshots is on a host."""

from __future__ import annotations

from collections.abc import Collection

from agent.model.data import SnapshotFile, SnapshotNote, Volume
from agent.model.errors import HostError, Problem
from tests.fakes.journal import Journal

SIZE_BYTES = 256 << 20


class FakeVolumes:
    """Data volumes and their snapshots, each as a text."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.shares = False
        self.volumes: dict[str, str] = {}
        self.snapshots: dict[str, dict[str, str]] = {}
        self.notes: dict[tuple[str, str], SnapshotNote] = {}
        self.brought: dict[str, str] = {}
        self.linked: dict[str, str] = {}
        """Snapshots that are the volume itself under another name."""

    def can_share(self, appliance: str) -> bool:
        del appliance
        return self.shares

    def has(self, appliance: str, snapshot: str) -> bool:
        return snapshot in self.snapshots.get(appliance, {})

    def volume(self, appliance: str) -> Volume:
        there = appliance in self.volumes
        path = f"/var/lib/appliance/appliances/{appliance}/data.img"
        return Volume(path, SIZE_BYTES if there else 0, 4096 if there else 0)

    def snapshot_files(self, appliance: str) -> list[SnapshotFile]:
        return [
            SnapshotFile(name, 0, SIZE_BYTES, 4096, self.notes.get((appliance, name)))
            for name in sorted(self.snapshots.get(appliance, {}))
        ]

    def take(self, appliance: str, snapshot: str, note: SnapshotNote | None = None) -> None:
        if note:
            self.notes[appliance, snapshot] = note
        self._journal.note(f"snapshot {appliance} {snapshot}")
        self.snapshots.setdefault(appliance, {})[snapshot] = self.volumes.get(appliance, "")

    def delete(self, appliance: str, snapshot: str) -> bool:
        self._journal.note(f"delete {appliance} {snapshot}")
        return self.snapshots.get(appliance, {}).pop(snapshot, None) is not None

    def bring(self, appliance: str, snapshot: str) -> None:
        if not self.has(appliance, snapshot):
            raise HostError("There is no such snapshot.", problem=Problem.NOT_FOUND)
        self._journal.note(f"bring {appliance} {snapshot}")
        self.brought[appliance] = self.snapshots[appliance][snapshot]

    def switch(self, appliance: str, aside: str, note: SnapshotNote) -> None:
        self._journal.note(f"note {appliance} {aside}")
        self.notes[appliance, aside] = note
        self._journal.note(f"link {appliance} {aside}")
        self.snapshots.setdefault(appliance, {})[aside] = self.volumes[appliance]
        self.linked[appliance] = aside
        self._journal.note(f"switch {appliance}")
        self.volumes[appliance] = self.brought.pop(appliance)
        del self.linked[appliance]

    def put_back(self, appliance: str, aside: str) -> bool:
        kept = self.snapshots.get(appliance, {})
        there = aside in kept
        if there:
            self._journal.note(f"put back {appliance} {aside}")
            text = kept.pop(aside)
            if self.linked.pop(appliance, None) is None:
                self.volumes[appliance] = text
        self._journal.note(f"drop {appliance}")
        self.brought.pop(appliance, None)
        self.notes.pop((appliance, aside), None)
        return there

    def exchange(self, appliance: str, snapshot: str, restored: str) -> None:
        self._journal.note(f"exchange {appliance} {snapshot} {restored}")
        kept = self.snapshots.setdefault(appliance, {})
        kept[snapshot], self.volumes[appliance] = self.volumes.get(appliance, ""), kept.pop(restored)

    def discard(self, appliance: str, snapshot: str) -> None:
        self.snapshots.get(appliance, {}).pop(snapshot, None)

    def restore(self, appliance: str, snapshot: str, *, aside: str = "") -> bool:
        kept = self.snapshots.get(appliance, {})
        if snapshot not in kept:
            return False
        self._journal.note(f"restore {appliance} {snapshot}")
        if aside and appliance in self.volumes:
            kept[aside] = self.volumes[appliance]
        self.volumes[appliance] = kept.pop(snapshot)
        return True

    def remove(self, appliance: str, *, but: Collection[str]) -> None:
        kept = self.snapshots.get(appliance, {})
        self.snapshots[appliance] = {
            name: text for name, text in kept.items() if name in but or not name.startswith("swap-")
        }
