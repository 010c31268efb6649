"""What the agent once chose and keeps: addresses and a core for each appliance, subnets for networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.model.address import Address, Subnet


@dataclass(frozen=True, slots=True)
class Assignments:
    """`addresses` by network and appliance, `cores` by appliance, `subnets` by automatic network; kept in
    /var/lib/appliance/assignments.json."""

    addresses: Mapping[str, Mapping[str, tuple[Address, ...]]] = field(default_factory=dict)
    cores: Mapping[str, int] = field(default_factory=dict)
    subnets: Mapping[str, tuple[Subnet, ...]] = field(default_factory=dict)

    def with_appliance(
        self, name: str, addresses: Mapping[str, tuple[Address, ...]], core: int
    ) -> Assignments:
        """With these addresses by network and this core for one appliance."""
        networks: dict[str, Mapping[str, tuple[Address, ...]]] = {
            network: {other: held for other, held in leases.items() if other != name}
            for network, leases in self.addresses.items()
        }
        for network, given in addresses.items():
            networks[network] = {**networks.get(network, {}), name: given}
        return replace(self, addresses=networks, cores={**self.cores, name: core})
