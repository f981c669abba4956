"""What the status page is told of the worker: a snapshot, taken on the worker's loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

#: A readiness check: None, or a short reason why not, without a secret. It reports a state that is kept
#: elsewhere and asks nobody; it is called on the worker's loop.
Check = Callable[[], str | None]

#: The checks by name, in the order they are shown.
Checks = Mapping[str, Check]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's answer."""

    name: str
    #: None if all is well.
    reason: str | None

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """A connector that is installed here."""

    name: str
    version: str = ""
    actions: int = 0
    #: Why it does not run; None if it does.
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue that is consumed here."""

    name: str
    slots_used: int
    slots_free: int
    #: Why it is not consuming; None if it is.
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The worker at one moment."""

    version: str
    uptime_s: float
    connectors: tuple[ConnectorStatus, ...] = ()
    queues: tuple[QueueStatus, ...] = ()
    #: Tells this worker from others: host name and process id, say.
    name: str = ""
    draining: bool = False


class StatusSource(Protocol):
    """Whoever can describe the worker; the service."""

    def snapshot(self) -> Status:
        """Describe the worker now. Called on its loop, and must not wait for anything."""
        ...
