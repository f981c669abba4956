"""What the caller is sent of an outcome."""

from datetime import datetime

from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.outcome import Outcome
from schemas.job import Job, JobRefused
from schemas.result import Result, error_of


def result_of(
    job: Job | JobRefused, outcome: Outcome, *, started_at: datetime, finished_at: datetime
) -> Result:
    """Return the reply to a job, or to bytes that are not one."""
    failure = outcome.error
    return Result(
        id=job.id,
        connector=job.connector,
        action=job.action,
        status="failed" if failure else "succeeded",
        data=None if failure else outcome.data,
        error=None
        if failure is None
        else error_of(
            failure.code,
            failure.message,
            locale=job.locale,
            retry_after_s=failure.retry_after_s,
            details=failure.details,
            data=failure.data,
        ),
        attempts=outcome.attempts,
        replayed=outcome.replayed,
        started_at=started_at,
        finished_at=finished_at,
        duration_ms=round((finished_at - started_at).total_seconds() * 1000, 1),
        metadata=job.metadata,
    )


def refused_outcome(refusal: JobRefused) -> Outcome:
    """Return the outcome of bytes that are not a job."""
    return Outcome(error=ConnectorError(refusal.message, code=refusal.code, details=refusal.details))
