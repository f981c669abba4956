"""What an operator lets be called although it lies inside: CONNECTORS_EGRESS_ALLOW."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Self

_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True)
class Egress:
    """Hosts and networks inside which providers may be, and may be called without encryption.

    A host counts by the name that is written, whatever it leads to; a network counts for addresses that are written
    as such. A name in nobody's list stays outside, also if DNS says that it lies in a network of the list.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Read entries: `crm.internal`, `10.1.0.0/16`, `127.0.0.1`; `localhost` stands for all of loopback.

        Raises:
            ValueError: an entry is neither; it is named.
        """
        hosts: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for entry in (each.strip().lower().strip("[]") for each in entries):
            if entry in {"localhost", "loopback"}:
                networks += _LOOPBACK
            elif entry[:1].isdigit() or ":" in entry:
                networks.append(_network(entry))
            elif entry and all(part.replace("-", "").replace("_", "").isalnum() for part in entry.split(".")):
                hosts.add(entry)
            else:
                raise ValueError(f"{entry[:80]!r} is no host name and no network such as 10.1.0.0/16")
        return cls(frozenset(hosts), tuple(networks))

    @property
    def allows_loopback(self) -> bool:
        """Whether `localhost` may be called."""
        return any(self.contains(address) for address in (IPv4Address("127.0.0.1"), IPv6Address("::1")))

    def contains(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether an address lies in a network of the list."""
        return any(address in network for network in self.networks)


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(entry)
    except ValueError as error:
        raise ValueError(f"{entry[:80]!r} is no network: {error}") from None


#: Nothing inside.
NOTHING_INSIDE: Final = Egress()
#: Everything on this machine: for development, and for tests with providers of their own.
THIS_MACHINE: Final = Egress(networks=_LOOPBACK)
