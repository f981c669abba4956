"""A local server that speaks the Google Calendar API."""

from connectors.sandbox.google.faults import Fault
from connectors.sandbox.google.server import GoogleSandbox

__all__ = ["Fault", "GoogleSandbox"]
