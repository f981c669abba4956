"""The errors of Salesforce, asked for or earned, and what the sandbox records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from connectors.sandbox.faults import BaseFault, BaseJournal


class Refusal(Exception):
    """An error of Salesforce."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = None if fields is None else list(fields)
        self.more = dict(more or {})

    def body(self) -> list[dict[str, Any]]:
        """Return the error as the REST API does: a list."""
        fault: dict[str, Any] = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            fault["fields"] = self.fields
        return [fault | self.more]


@dataclass(slots=True)
class Fault(BaseFault):
    """A fault of an operation such as `query` or `create`, answered as Salesforce answers an error."""

    code: str = "UNKNOWN_EXCEPTION"
    message: str = "as asked"

    def refuse(self, status: int) -> web.Response:
        """Return the error that was asked for."""
        body = Refusal(status, self.code, self.message).body()
        return web.json_response(body, status=status, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Effect:
    """A change of the org."""

    at: str
    #: `created`, `changed`, `deleted` or `login`.
    kind: str
    object: str
    record_id: str
    detail: Mapping[str, Any]


class Journal(BaseJournal[Effect]):
    """The list of effects, and the count of calls."""

    def write(
        self, at: datetime, kind: str, object_name: str = "", record_id: str = "", **detail: Any
    ) -> None:
        """Record an effect."""
        self.append(Effect(at.isoformat(), kind, object_name, record_id, detail))

    def of(self, kind: str, object_name: str | None = None) -> list[Effect]:
        """List the effects of a kind, on an object."""
        return [
            effect for effect in self.effects if effect.kind == kind and object_name in {None, effect.object}
        ]
