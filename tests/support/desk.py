"""A front desk: runs the calendar's actions against the sandbox, as a worker would."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from connectors.google_calendar import google_calendar
from connectors.sandbox.google.server import GoogleSandbox
from connectors.sdk.context import Context
from connectors.sdk.http.client import HttpPool

#: The account that the desk works for, and its primary calendar's id.
OWNER = "desk@clinic.example"


@dataclass
class Desk:
    """One account's credential, and a process's HTTP pool."""

    google: GoogleSandbox
    pool: HttpPool
    document: dict[str, Any] = field(repr=False)
    tenant: str = "acme"
    #: The names of the leases that were taken.
    leases: list[str] = field(default_factory=list)

    async def __call__(self, action: str, *, key: str | None = None, attempt: int = 1, **params: Any) -> Any:
        """Run one action on strictly read parameters, and give its answer in JSON's terms."""
        declared = google_calendar.actions[action]
        read = declared.signature.read(params)
        return declared.dump(await declared.call(read, self.context(action, key, attempt)))

    async def undo(self, action: str, *, key: str, result: Any = None, **params: Any) -> None:
        """Take an action's effect back."""
        declared = google_calendar.actions[action]
        read = declared.signature.read(params) if params else None
        await declared.call_undo(self.context(action, key, 1), params=read, result=result)

    async def at_once(self, *calls: Any) -> list[Any]:
        """Run calls together; an error stands where its answer would."""
        return await asyncio.gather(*calls, return_exceptions=True)

    def context(self, action: str, key: str | None, attempt: int) -> Context[Any]:
        """Put together what the worker would hand to the action."""
        return Context(
            job_id=uuid4().hex,
            tenant=self.tenant,
            connector="google_calendar",
            action=action,
            idempotency_key=key or uuid4().hex,
            credential=google_calendar.read_credential(self.document),
            http=self.pool.client(tenant=self.tenant, connector="google_calendar", credential="default"),
            attempt=attempt,
            is_repeat=attempt > 1,
            _lease=self._lease,
        )

    @asynccontextmanager
    async def _lease(self, name: str) -> AsyncIterator[None]:
        """Note a lease; it excludes nobody, so that the protocol has to do without."""
        self.leases.append(name)
        yield

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events on the desk's calendar that are not cancelled."""
        stored = self.google.store.calendars[OWNER].events.values()
        return [event for event in stored if event["status"] != "cancelled"]

    def calls(self, operation: str) -> int:
        """How often the sandbox was called so."""
        return self.google.journal.calls[operation]
