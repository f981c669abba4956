"""One start of a connector's function, and who can run it: this process, or one of the connector's own."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic_core import to_json

from connectors.sdk.connector import Action
from connectors.sdk.context import Context
from connectors.sdk.errors import ConnectorError, Sent
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.runtime.call import Call
from schemas.error import Code
from schemas.result import MAX_RESULT_BYTES

#: Which of an action's functions is called.
Part = Literal["run", "reconcile", "undo"]


@dataclass(slots=True, eq=False)
class Invocation:
    """One start of a function of a connector: the action itself, its reconcile, or its undo."""

    call: Call
    #: None for an action that needs none.
    context: Context[Any] | None
    effects: JobEffects
    part: Part = "run"
    #: The secret's fields, as the vault has them.
    secret: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: End requests that change nothing at the job's deadline.
    heeds_deadline: bool = True
    #: What the run returned that is undone.
    result: Any = None
    #: Until then a request that can have an effect may leave, by the machine's monotonic clock.
    leave_until: Callable[[], float] = lambda: math.inf

    async def await_hook(self) -> Any:
        """Call the reconcile or the undo in this process.

        Returns:
            What a reconcile found as `(result,)`, in JSON's types; None if the effect is not there.
        """
        action, params = self.call.action, self.call.params
        assert self.context is not None
        if self.part == "undo":
            return await action.call_undo(self.context, params=params, result=self.result)
        assert params is not None
        found = await action.call_reconcile(params, self.context)
        return None if found is None else (action.dump(found),)


class IsolatedHost(Protocol):
    """Runs the functions of isolated connectors, each connector in a process of its own."""

    async def invoke(self, invocation: Invocation) -> Any:
        """Run a function, and return what `checked_result` or `await_hook` would.

        Cancelling it cancels the function; one that goes on for longer than a second has its process killed.

        Raises:
            ConnectorError: what the function raised; UNAVAILABLE if its process ended, with `sent` NO only if the
                function had certainly not started.
        """
        ...


def checked_result(action: Action[..., Any], value: Any) -> Any:
    """Return what an action returned, in JSON's types.

    Raises:
        ConnectorError: it is of another type than declared, or larger than a reply may be.
    """
    data = action.dump(value)
    if (size := len(to_json(data))) > MAX_RESULT_BYTES:
        raise ConnectorError(
            f"the result has {size} bytes; a reply holds {MAX_RESULT_BYTES}",
            code=Code.RESULT_TOO_LARGE,
            sent=Sent.UNCERTAIN,  # what it did, it did
        )
    return data
