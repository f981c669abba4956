"""The reply to a job, and the progress messages that may come before it."""

from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.error import Code, Detail, Error, say

#: The AMQP property `type` of a reply, and of a progress message.
RESULT_TYPE: Final = "connectors.result"
PROGRESS_TYPE: Final = "connectors.progress"
#: The largest reply.
MAX_RESULT_BYTES: Final = 1024 * 1024

Stage = Literal["accepted", "started", "waiting", "retrying", "note"]


class Result(BaseModel):
    """The result of a job: its data, or the error that says why it failed."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null", title="connectors result")

    version: Literal[1] = 1
    id: str | None = Field(description="The job's; null if nothing could be read.")
    connector: str | None
    action: str | None
    status: Literal["succeeded", "failed"]
    data: Any = Field(default=None, description="What the action returned; null on failure.")
    error: Error | None = None
    attempts: int = Field(
        default=0, ge=0, description="How often the action was started for this job, crashes included."
    )
    replayed: bool = Field(
        default=False, description="Whether the effect had happened before; data is the stored result."
    )
    started_at: datetime
    finished_at: datetime
    duration_ms: float
    metadata: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_data_and_error(self) -> Self:
        if (self.status == "failed") != (self.error is not None):
            raise ValueError("a failed result has an error, a succeeded one has none")
        return self


class Progress(BaseModel):
    """How far a job has come; best effort, never guaranteed."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="connectors progress")

    version: Literal[1] = 1
    id: str
    stage: Stage
    message: str | None = None
    at: datetime


def error_of(
    code: Code,
    message: str,
    *,
    locale: str = "en",
    retry_after_s: float | None = None,
    details: tuple[Detail, ...] = (),
    data: dict[str, Any] | None = None,
) -> Error:
    """Create an error, filled in from the table of codes."""
    facts = code.facts
    return Error(
        code=code,
        category=facts.category,
        message=message,
        say=say(code, locale),
        retryable=facts.retryable,
        retry_after_s=retry_after_s,
        details=details,
        data=data,
    )
