"""Sockets of the host that wait for clients."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.address import Address
from agent.model.traffic import Protocol, Publication


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound port; `address` of None means all of the host's, of IP `version` or, where that is 0, of both.
    `owner` is the unit it belongs to, or ''."""

    protocol: Protocol
    address: Address | None
    version: int
    port: int
    owner: str

    def keeps_from(self, publication: Publication) -> bool:
        """Whether this port cannot be published because it is taken.

        A loopback address but 127.0.0.1 is no obstacle: none of those is ever published.
        """
        ports = publication.ports
        if self.protocol != publication.protocol or not ports.first <= self.port <= ports.last:
            return False
        if 0 not in {self.version, publication.version} and self.version != publication.version:
            return False
        if self.address is None:
            return True
        if self.address.is_loopback and str(self.address) != "127.0.0.1":
            return False
        return publication.address in {None, self.address}
