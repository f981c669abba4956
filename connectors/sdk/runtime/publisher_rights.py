"""What a broker user may ask for: CONNECTORS_PUBLISHERS."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, field_validator

from connectors.sdk.errors import ConnectorError
from schemas.error import Code
from schemas.job import SCOPE_PATTERN, Job

#: Stands for every tenant, connector or action.
EVERY: Final = "*"

Mode = Literal["run", "undo", "validate", "replay"]


def _compiling(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


RegularExpression = Annotated[str, AfterValidator(_compiling)]


class PublisherRights(BaseModel):
    """What one broker user may ask for; what is not named is not limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: tuple[str, ...]
    connectors: tuple[str, ...] = (EVERY,)
    #: `book_appointment`, or `google_calendar.book_appointment`.
    actions: tuple[str, ...] = (EVERY,)
    #: `replay`: its headers say which publisher a job came from, as those of `connectors dead replay` do.
    modes: tuple[Mode, ...] = ("run", "undo", "validate", "replay")
    #: A regular expression of the addresses that its replies may go to; None for the worker's own rule.
    reply_to: RegularExpression | None = None

    @field_validator("tenants")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tenant in value:
            if tenant != EVERY and not re.fullmatch(SCOPE_PATTERN[1:-1], tenant):
                raise ValueError(f"{tenant!r} is not a tenant's name")
        return value

    @property
    def may_replay(self) -> bool:
        """Whether it is an operator's user: for every tenant, and what its headers say of a job is believed."""
        return EVERY in self.tenants and "replay" in self.modes

    def refusal(self, job: Job) -> str | None:
        """Return what of a job is not allowed; None if all of it is."""
        if not _among(self.tenants, job.tenant):
            return f"act for the tenant {job.tenant!r}"
        if not _among(self.connectors, job.connector):
            return f"use the connector {job.connector!r}"
        if not _among(self.actions, job.action, f"{job.connector}.{job.action}"):
            return f"run {job.connector}.{job.action}"
        if job.mode not in self.modes:
            return f"publish jobs of the mode {job.mode!r}"
        return None


def _among(allowed: tuple[str, ...], *names: str) -> bool:
    return EVERY in allowed or any(name in allowed for name in names)


def _as_rights(value: object) -> object:
    return {"tenants": value} if isinstance(value, list | tuple) else value


#: By broker user: a list of tenants, or an object with all that it may.
Publishers = Mapping[str, Annotated[PublisherRights, BeforeValidator(_as_rights)]]


def check_publisher(publishers: Publishers | None, publisher: str | None, job: Job) -> None:
    """Check that a publisher may ask for a job.

    Args:
        publishers: None lets everybody ask for everything.
        publisher: the broker user, as the broker vouches for it.

    Raises:
        ConnectorError: TENANT_FORBIDDEN.
    """
    if publishers is None:
        return
    rights = publishers.get(publisher or "")
    refused = f"act for the tenant {job.tenant!r}" if rights is None else rights.refusal(job)
    if refused is not None:
        who = f"the broker user {publisher!r}" if publisher else "a publisher without user_id"
        raise ConnectorError(f"{who} may not {refused}", code=Code.TENANT_FORBIDDEN)
