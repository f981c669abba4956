"""What a try at a job knows beforehand, and what became of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.sdk.errors import ConnectorError
from schemas.error import Code
from schemas.result import Stage

Note = Callable[[Stage, str | None], None]


def no_note(stage: Stage, message: str | None) -> None:
    """Tell nobody: the job asked for no progress."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of this try beside the job itself."""

    #: The broker user that published the job, as the broker vouches for it.
    publisher: str | None = None
    #: How often the action was started before.
    starts: int = 0
    #: The deadline in force.
    deadline: datetime | None = None
    #: Where progress goes.
    note: Note = no_note


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt."""

    #: JSON types; None on failure.
    data: Any = None
    error: ConnectorError | None = None
    #: How often the action was started, this try counted.
    starts: int = 0
    replayed: bool = False
    #: What goes on after the caller was answered: a write left to finish, a record still to be written.
    #: The delivery is not acked before it ends.
    lingering: "asyncio.Future[Any] | None" = None


class Snooze(Exception):
    """The job cannot run for now through no fault of its own; no attempt is used up."""


def deadline_exceeded(message: str, *, outcome: str, **more: str) -> ConnectorError:
    """Make the error of a job whose deadline came.

    Args:
        outcome: `not_started` or `unknown`.
    """
    return ConnectorError(message, code=Code.DEADLINE_EXCEEDED, data={"outcome": outcome, **more})
