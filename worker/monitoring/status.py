"""The worker's state as the status page shows it: a snapshot, taken on the worker's loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

#: A readiness check: None, or a short reason why not ready, without a secret. It reads a state that is kept
#: elsewhere and does no I/O; it is called on the worker's loop.
Check = Callable[[], str | None]

#: The checks by name, in the order they are shown.
Checks = Mapping[str, Check]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    name: str
    #: Why the check fails; None if it passes.
    reason: str | None

    @property
    def ok(self) -> bool:
        """Whether the check passes."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """An installed connector."""

    name: str
    version: str = ""
    actions: int = 0
    #: Why it does not run; None if it does.
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue that this worker consumes."""

    name: str
    slots_used: int
    slots_free: int
    #: Why it is not consuming; None if it is.
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The worker's state at one moment."""

    version: str
    uptime_s: float
    connectors: tuple[ConnectorStatus, ...] = ()
    queues: tuple[QueueStatus, ...] = ()
    #: Tells this worker from others: host name and process id, say.
    name: str = ""
    draining: bool = False


class StatusSource(Protocol):
    """Describes the worker; implemented by the service."""

    def snapshot(self) -> Status:
        """Return the worker's state now. Called on its loop; must not wait for anything."""
        ...
