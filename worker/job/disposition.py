"""What may become of a delivery: a closed set of values. Deciding creates one, publishing reads it, settling ends it.

Reply         tell the caller; dead-letter the job if no one gets the answer
DeadLetter    keep the job for an operator, and tell the caller if there is one
Delay         run the job later: a retry (an attempt was counted) or a snooze (none was)
Reroute       publish the job again under the routing key that its body names
Requeue       give the delivery back: nothing was done
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.sdk.errors import ConnectorError
from schemas.job import Job, JobRefused
from schemas.result import Result
from worker.job.headers import JobHeaders


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Keep the job for an operator."""

    error: ConnectorError
    attempts: int
    #: None if the bytes could not be read far enough.
    job: Job | JobRefused | None = None
    #: What the caller is told as well.
    result: Result | None = None
    ack_after: "asyncio.Future[Any] | None" = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to the caller with what came of the job."""

    job: Job | JobRefused
    result: Result
    #: What is kept if the answer reaches no one.
    if_undelivered: DeadLetter | None = None
    #: What the ack waits for: a write that is left to finish, a record still to be written.
    ack_after: "asyncio.Future[Any] | None" = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Run the job later."""

    headers: JobHeaders
    #: When that was decided. The wait counts from here: 4.999 s of 5 s would go through the queue of 1 s five times.
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Reroute:
    """Publish the job to the queue of the connector that its body names."""

    job: Job


@dataclass(frozen=True, slots=True)
class Requeue:
    """Return the delivery to its queue."""


Disposition = Reply | DeadLetter | Delay | Reroute | Requeue
