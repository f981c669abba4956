"""The sidecar port: metrics, health, readiness and the status page for operators."""

from worker.monitoring.listener import CannotListen, PortTaken
from worker.monitoring.server import Sidecar
from worker.monitoring.status import Check, Checks, ConnectorStatus, LaneStatus, Status, StatusSource

__all__ = [
    "CannotListen",
    "Check",
    "Checks",
    "ConnectorStatus",
    "LaneStatus",
    "PortTaken",
    "Sidecar",
    "Status",
    "StatusSource",
]
