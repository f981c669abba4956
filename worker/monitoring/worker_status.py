"""A worker's readiness, check by check, and its state for the status page."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Protocol

from connectors.registry import Registry
from worker.broker.confirmed_publisher import ConfirmedPublisher
from worker.broker.ledger_guard import LedgerGuard
from worker.broker.publish_probe import PublishProbe
from worker.broker.queue_consumer import QueueConsumer
from worker.broker.topology import JobQueue
from worker.credentials.source import SecretStore
from worker.job.waiting_room import WaitingRoom
from worker.ledger.store import SqlLedger
from worker.monitoring.status import ConnectorStatus, QueueStatus, Status


class _Worker(Protocol):
    """The parts of the worker that are read."""

    registry: Registry
    consumers: list[QueueConsumer]
    credentials: SecretStore
    ledger: SqlLedger
    ledger_guard: LedgerGuard
    confirmed_publisher: ConfirmedPublisher
    publish_probe: PublishProbe

    @property
    def rooms(self) -> Mapping[JobQueue, WaitingRoom]: ...

    @property
    def is_stopping(self) -> bool: ...

    @property
    def hung_fault(self) -> str | None: ...


class WorkerStatus:
    """Reads a worker's state for the monitoring server; does no I/O, waits for nothing."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self._started_at = time.monotonic()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def checks(self) -> Mapping[str, Callable[[], str | None]]:
        """Return the readiness checks by name."""
        return {
            "running": lambda: "draining" if self._worker.is_stopping else None,
            "broker": self._broker,
            "queues": self._queues,
            "credentials": lambda: self._worker.credentials.unavailable_reason,
            "ledger": lambda: self._worker.ledger.unavailable_reason or self._worker.ledger_guard.fault,
            "actions": lambda: self._worker.hung_fault,
        }

    def snapshot(self) -> Status:
        """Return the worker's state now."""
        return Status(
            version=version("connectors-service"),
            uptime_s=time.monotonic() - self._started_at,
            connectors=tuple(
                ConnectorStatus(
                    each.name,
                    each.version,
                    len(each.connector.actions) if each.connector else 0,
                    each.fault,
                )
                for each in self._worker.registry.installed.values()
            ),
            queues=tuple(
                self._queue_status(consumer) for consumer in self._worker.consumers if not consumer.queue.bulk
            ),
            name=self._name,
            draining=self._worker.is_stopping,
        )

    def _queue_status(self, consumer: QueueConsumer) -> QueueStatus:
        limiter = self._worker.rooms[consumer.queue].slots
        return QueueStatus(
            consumer.queue.name,
            slots_used=limiter.used,
            slots_free=limiter.total - limiter.used,
            fault=consumer.fault,
        )

    def _broker(self) -> str | None:
        return self._worker.confirmed_publisher.fault or self._worker.publish_probe.fault

    def _queues(self) -> str | None:
        faults = [
            f"{consumer.queue.name}: {consumer.fault}"
            for consumer in self._worker.consumers
            if consumer.fault
        ]
        return "; ".join(faults) or None
