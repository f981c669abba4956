"""Run a flow of the org."""

import json
from typing import Any, Final

from connectors.salesforce.client import Ctx, Org, SalesforceApi
from connectors.salesforce.connector import WRITE_ERRORS, salesforce
from connectors.salesforce.error_mapping import refusal_of
from connectors.salesforce.models import FlowRun
from connectors.salesforce.record_params import RunFlow
from connectors.sdk import Effect, InvalidParams, NotFound, Unavailable
from connectors.sdk.errors import Sent

#: Outputs that every flow has.
_STATUS: Final = "Flow__InterviewStatus"
_PREFIX: Final = "Flow__"


@salesforce.action(effect=Effect.WRITE, errors=WRITE_ERRORS)
async def run_flow(params: RunFlow, ctx: Ctx) -> FlowRun:
    """Run an active autolaunched flow with these inputs, and return its outputs.

    What the flow does is not known: a run whose answer is lost ends in OUTCOME_UNKNOWN.
    """
    result = await _run(SalesforceApi(ctx), params)
    if result.get("isSuccess") is not True:
        raise refusal_of(result.get("errors"), 400)
    outputs = result.get("outputValues")
    outputs = outputs if isinstance(outputs, dict) else {}
    return FlowRun(
        name=params.name,
        status=str(outputs.get(_STATUS) or "Finished"),
        outputs={name: value for name, value in outputs.items() if not name.startswith(_PREFIX)},
    )


async def _run(api: SalesforceApi, params: RunFlow) -> dict[str, Any]:
    body = json.dumps({"inputs": [dict(params.inputs)]})

    def run(org: Org) -> Any:
        return org.api.restful(f"actions/custom/flow/{params.name}", method="POST", data=body)

    try:
        answer = await api.run(run)
    except NotFound:
        issue = "is not an active autolaunched flow, or this user may not run it"
        raise InvalidParams.field("name", issue) from None
    if not isinstance(answer, list) or len(answer) != 1 or not isinstance(answer[0], dict):
        raise Unavailable("Salesforce did not return the flow's result", sent=Sent.UNCERTAIN)
    return answer[0]
