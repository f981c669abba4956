"""The context of a run: an action's job, credential, HTTP client, deadline and log."""

import hashlib
import logging
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Union, get_args, get_origin, get_type_hints

from typing_extensions import TypeVar

from connectors.sdk.personal import PersonalData
from connectors.sdk.steps import Step, Steps

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpClient

CredentialT = TypeVar("CredentialT", default=Any)


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines carry the job; fields are keyword arguments: `log.info("found", count=2)`.

    Args:
        fields: the fields of each line.
        find_personal: finds the job's personal data, masked in each line; called by the first of them, because
            a big job takes a while to search, and most log nothing.
    """

    def __init__(
        self,
        logger: logging.Logger,
        fields: Mapping[str, object],
        find_personal: Callable[[], PersonalData] = PersonalData,
    ) -> None:
        super().__init__(logger, fields)
        self._find_personal = find_personal

    @cached_property
    def _personal(self) -> PersonalData:
        return self._find_personal()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the job's fields and the call's own beside the message."""
        passed = {name: kwargs[name] for name in ("exc_info", "stack_info", "stacklevel") if name in kwargs}
        fields = {name: value for name, value in kwargs.items() if name not in passed}
        masked = self._personal.mask(fields)
        return self._personal.mask(msg), {**passed, "extra": {"fields": {**(self.extra or {}), **masked}}}


def is_context(hint: Any) -> bool:
    """Return whether a parameter with this annotation takes the Context: `Context`, `Context[C]`, or one or None."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(map(is_context, get_args(hint)))
    return hint is Context or origin is Context


def credential_of(function: Callable[..., Any]) -> Any:
    """Return the credential that a function's `Context[…]` declares; None if it declares none."""
    for hint in get_type_hints(function).values():
        for each in (hint, *get_args(hint)):
            if get_origin(each) is Context:
                return get_args(each)[0]
    return None


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _ignore(message: str) -> None:
    """Report to no one: the job asked for no progress."""


def _no_lease(name: str) -> AbstractAsyncContextManager[None]:
    """Exclude no one: no runtime stands behind this context."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Context(Generic[CredentialT]):
    """One run of one action, as its author sees it.

    `Context[MyCredential]` types the credential. Everything here belongs to this job alone.
    """

    job_id: str
    tenant: str
    connector: str
    action: str
    #: Same key: the same effect, once. Hand it to a provider that knows such keys.
    idempotency_key: str
    #: The checked credential of this tenant; None where the connector declares none.
    credential: CredentialT
    #: The shared HTTP client: limits, deadline, masking and errors are its business.
    http: "HttpClient"
    #: 1 on the first try.
    attempt: int = 1
    #: An earlier attempt under this key may have had its effect; a refusal may be the trace of that.
    is_repeat: bool = False
    #: No call may start after this.
    deadline: datetime | None = None
    #: BCP 47.
    locale: str = "en"
    log: JobLog = field(default_factory=lambda: JobLog(logging.getLogger("connectors"), {}))
    _report: Callable[[str], None] = _ignore
    _lease: Callable[[str], AbstractAsyncContextManager[None]] = _no_lease
    _steps: Steps = field(default_factory=Steps)
    _now: Callable[[], datetime] = _utc_now

    @property
    def key_digest(self) -> str:
        """The idempotency key as 64 hex digits: for a provider whose ids or keys have a form of their own."""
        parts = (self.tenant, self.connector, self.action, self.idempotency_key)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def lease(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold `name` alone among the jobs of this tenant and connector, in all workers that share a ledger.

        A second line of defence for what a provider does not make exclusive itself: the lease ends when its
        worker dies.

        Raises:
            Unavailable: others held it for too long; nothing was sent.
        """
        return self._lease(name)

    def step(self, name: str) -> AbstractAsyncContextManager[Step]:
        """Enter one part of an action that writes more than once.

            async with ctx.step("order") as order:
                if not order.is_done:
                    order.result = (await api.post("/orders", json=…)).json()["id"]

        The result is recorded in the ledger when the block ends, so that the next run of the same key skips the part.
        A failure of a later part is then no doubt about this one. Parts may run at once. An undo finds what the
        run recorded, even of a run that never ended.
        """
        return self._steps.step(name)

    def progress(self, message: str) -> None:
        """Report progress to a caller who asked for it; best effort, never waits."""
        self._report(message)

    def remaining_s(self) -> float | None:
        """Return the seconds left until the deadline; None without one."""
        return None if self.deadline is None else (self.deadline - self._now()).total_seconds()
