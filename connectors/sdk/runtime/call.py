"""A job that passed every check, with what it takes to run it."""

from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from connectors.sdk.connector import Action, Connector
from connectors.sdk.effects import Effect
from connectors.sdk.runtime.outcome import Attempt
from connectors.sdk.steps import Steps
from schemas.job import Job


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at one action."""

    connector: Connector[Any]
    action: Action[..., Any]
    #: None if an undo came without.
    params: BaseModel | None
    job: Job
    attempt: Attempt
    #: An earlier attempt under this key may have had its effect.
    is_repeat: bool = False
    #: What the run recorded of its parts; kept in the ledger if the action writes.
    steps: Steps = field(default_factory=Steps)

    @property
    def name(self) -> str:
        """The action as people write it."""
        return f"{self.job.connector}.{self.job.action}"

    def effect(self, credential: Any) -> Effect:
        """Return what running this call does to the world."""
        assert self.params is not None
        return self.action.effect_of(self.params, credential)

    def after(self, attempts: int) -> "Call":
        """Return the same call once the action was started so often."""
        return replace(self, attempt=replace(self.attempt, attempts=attempts))
