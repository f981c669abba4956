"""The connectors that a core can run, as it sees them: the worker's come from the registry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from connectors.sdk.connector import Connector


class KnownConnectors(Protocol):
    """Which connectors there are, and which failed to load."""

    @property
    def connectors(self) -> Mapping[str, Connector[Any]]:
        """Those that loaded, by name."""
        ...

    @property
    def broken(self) -> Mapping[str, str]:
        """Those that did not, by name, with the reason in one line."""
        ...


@dataclass(frozen=True, slots=True)
class GivenConnectors:
    """Connectors given by hand, as the test kit does."""

    connectors: Mapping[str, Connector[Any]]
    broken: Mapping[str, str] = field(default_factory=dict)
