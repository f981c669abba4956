"""A flow of the org is run with inputs, and its outputs are returned."""

from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import Fault, Refusal
from connectors.sdk.errors import InvalidParams, Rejected
from connectors.sdk.testing import Kit
from schemas.error import Code
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration


async def test_a_flow_gets_its_inputs_and_returns_its_outputs(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    def remind(inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(inputs)
        return {"Flow__InterviewGuid": "x", "reminderId": "00T1"}

    bench.org.store.flows["Send_Reminder"] = remind
    inputs = {"contactId": "0031", "days": 3, "tags": ["a", "b"], "record": {"Name": "x"}}

    answer = await bench.run("run_flow", {"name": "Send_Reminder", "inputs": inputs})

    assert [inputs] == seen
    assert {"name": "Send_Reminder", "status": "Finished", "outputs": {"reminderId": "00T1"}} == answer


async def test_an_unknown_flow_is_the_jobs_fault(bench: Bench) -> None:
    with pytest.raises(InvalidParams) as caught:
        await bench.run("run_flow", {"name": "Nothing"})

    assert ["name"] == [detail.field for detail in caught.value.details]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "a?b"])
async def test_a_flows_name_leads_nowhere_else(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("run_flow", {"name": name})

    assert [] == bench.org.requests


async def test_a_flow_that_fails_is_rejected_by_its_code(bench: Bench) -> None:
    def fail(inputs: dict[str, Any]) -> dict[str, Any]:
        raise Refusal(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "no reminders on Sundays", fields=["Day__c"])

    bench.org.store.flows["Send_Reminder"] = fail

    with pytest.raises(Rejected) as caught:
        await bench.run("run_flow", {"name": "Send_Reminder"})

    assert "no reminders on Sundays" == (caught.value.data or {})["rule_message"]
    assert ["Day__c"] == [detail.field for detail in caught.value.details]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("flow", cut="after"),
        Fault("flow", status=500, does_work=True),
        Fault("flow", body=b"[]"),
        Fault("flow", body=b"{}"),
    ],
)
async def test_a_flow_whose_answer_is_lost_is_never_run_again(bench: Bench, fault: Fault) -> None:
    runs: list[dict[str, Any]] = []

    def remind(inputs: dict[str, Any]) -> dict[str, Any]:
        runs.append(inputs)
        return {}

    bench.org.store.flows["Send_Reminder"] = remind
    bench.org.faults.add(fault)

    async with Kit(salesforce, credential=bench.document) as kit:
        ran = await kit.run("run_flow", {"name": "Send_Reminder"})

    assert Code.OUTCOME_UNKNOWN is ran.code
    assert 1 == len(runs)
