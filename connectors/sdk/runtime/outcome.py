"""What is known of an attempt beforehand, and what came of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.slot import UNLIMITED, Slot
from schemas.result import Stage

ProgressCallback = Callable[[Stage, str | None], None]


def ignore_progress(stage: Stage, message: str | None) -> None:
    """Report to no one: the job asked for no progress."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of this attempt beside the job itself."""

    deadline: Deadline
    #: The broker user that published the job, as the broker vouches for it.
    publisher: str | None = None
    #: How often the action was started before.
    attempts: int = 0
    #: An earlier attempt may have had its effect, as the job's headers carry it.
    is_uncertain: bool = False
    report_progress: ProgressCallback = ignore_progress
    #: The right to run, held while the action does.
    slot: Slot = UNLIMITED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    #: JSON types; None on failure.
    data: Any = None
    error: ConnectorError | None = None
    #: How often the action was started, this attempt counted.
    attempts: int = 0
    #: The effect had happened before; `data` is the stored result.
    replayed: bool = False
    #: An effect may be there that no stored result tells of.
    is_uncertain: bool = False
    #: The provider refused the write under its key: what an earlier attempt did is settled, too.
    settles_key: bool = False
    #: A call that goes on though it was given up: a thread, or a task that ignores its cancellation.
    still_running: "asyncio.Future[Any] | None" = None
    #: What goes on after the caller was answered: a write left to finish, a record still to be written.
    #: The delivery is acked when it has ended.
    ack_after: "asyncio.Future[Any] | None" = None


class Snooze(Exception):
    """The job cannot run now through no fault of its own; it comes back, and no attempt is counted.

    Args:
        reason: for the log; holds no secret.
        retry_in_s: seconds until it can run; None if no one knows.
        at_most_s: seconds after which it can certainly run, though it may be able to sooner.
    """

    def __init__(
        self, reason: str, *, retry_in_s: float | None = None, at_most_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.retry_in_s = retry_in_s
        self.at_most_s = at_most_s
