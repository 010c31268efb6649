"""IP addresses and subnets of either version."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network
