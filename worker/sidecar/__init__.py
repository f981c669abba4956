"""The sidecar port: metrics, health, readiness and the status page for operators."""

from worker.sidecar.listener import CannotListen, PortTaken
from worker.sidecar.server import Sidecar
from worker.sidecar.status import Check, Checks, ConnectorStatus, LaneStatus, Status, StatusSource

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
