"""Looking up what became of a WRITE that did not say."""

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.sdk.context import JobLog
from connectors.sdk.errors import ConnectorError, OutcomeUnknown
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.runtime.action_runner import ActionRunner
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.invocation import Invocation
from connectors.sdk.runtime.lease import HeldClaim
from connectors.sdk.runtime.outcome import Snooze

_LOG: Final = JobLog(logging.getLogger("connectors.runtime"), {})


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The effect is there; `result` is what its run would have returned."""

    result: Any


class Reconciler:
    """Asks an action's `reconcile` whether an uncertain effect is there."""

    def __init__(self, runner: ActionRunner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock

    async def find(self, call: Call, claim: HeldClaim, secret: Mapping[str, Any]) -> Reconciled | None:
        """Look up what an earlier attempt did; None if it certainly did nothing.

        Raises:
            Snooze: the effect is not there, but may land yet.
            OutcomeUnknown: it cannot be looked up.
            ConnectorError: it cannot be looked up now.
        """
        found = await self._look(call, secret)
        if found is None and claim.claimed.lands_within_s > 0:
            if math.isinf(claim.claimed.lands_within_s):
                raise OutcomeUnknown(f"no one can say when an interrupted {call.name} can no longer land")
            raise Snooze(
                "the call of an earlier attempt may land yet", retry_in_s=claim.claimed.lands_within_s
            )
        return found

    async def find_now(
        self,
        call: Call,
        claim: HeldClaim,
        secret: Mapping[str, Any],
        *,
        still_running: "asyncio.Future[Any] | None",
    ) -> Reconciled | None:
        """Look up what this attempt did; None if it is not there so far, or cannot be looked up now.

        Raises:
            OutcomeUnknown: it can never be looked up.
        """
        if still_running is not None and not still_running.done():
            raise OutcomeUnknown(f"{call.name} ignores that its time is over, and may still write")
        try:
            return await self._look(call, secret)
        except OutcomeUnknown:
            raise
        except ConnectorError as unclear:
            _LOG.info("reconcile failed", job_id=call.job.id, code=unclear.code)
            return None

    async def _look(self, call: Call, secret: Mapping[str, Any]) -> Reconciled | None:
        if not call.action.can_reconcile or call.params is None:
            raise OutcomeUnknown(f"whether {call.name} happened cannot be found out")
        # The caller's deadline ends the waiting, not the look.
        effects = JobEffects()
        credential = call.connector.read_credential(secret)
        context = self._runner.context(call, credential, effects, heeds_deadline=False)
        hook = Invocation(call, context, effects, "reconcile", secret, heeds_deadline=False)
        found = await self._runner.run_hook(hook, "looking up")
        return None if found is None else Reconciled(found[0])
