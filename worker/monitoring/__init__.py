"""The monitoring port: metrics, health, readiness and the status page for operators."""

from worker.monitoring.listener import CannotListen, PortTaken
from worker.monitoring.server import MonitoringServer
from worker.monitoring.status import Check, Checks, ConnectorStatus, QueueStatus, Status, StatusSource

__all__ = [
    "CannotListen",
    "Check",
    "Checks",
    "ConnectorStatus",
    "MonitoringServer",
    "PortTaken",
    "QueueStatus",
    "Status",
    "StatusSource",
]
