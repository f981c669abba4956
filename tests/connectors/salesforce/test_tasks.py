"""Tasks and logged calls."""

from datetime import UTC, datetime

import pytest

from connectors.salesforce import tasks
from connectors.salesforce.org_zone import OrgZones
from connectors.sandbox.salesforce.server import KEY_FIELD
from connectors.sdk.errors import InvalidParams, Rejected
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration


async def test_a_task_is_created_for_a_contact_and_a_case(bench: Bench) -> None:
    ada, case = (next(iter(bench.org.store.records(name))) for name in ("Contact", "Case"))

    answer = await bench.run(
        "create_task",
        {
            "subject": "Call back",
            "description": "about the printer",
            "who_id": ada["Id"],
            "what_id": case["Id"],
            "priority": "High",
            "due_date": "2026-03-08",
        },
    )

    (task,) = bench.org.store.records("Task")
    assert {"task_id": task["Id"], "created": True} == answer
    assert (ada["Id"], case["Id"], "2026-03-08") == (task["WhoId"], task["WhatId"], task["ActivityDate"])
    assert "Not Started" == task["Status"]


async def test_a_call_is_logged_as_a_completed_task(bench: Bench) -> None:
    await bench.run(
        "log_call",
        {
            "direction": "outbound",
            "duration_seconds": 95,
            "result": "Appointment made",
            "call_date": "2026-03-08",
        },
    )

    (task,) = bench.org.store.records("Task")
    assert {
        "Subject": "Call",
        "Status": "Completed",
        "TaskSubtype": "Call",
        "CallType": "Outbound",
        "CallDurationInSeconds": 95,
        "CallDisposition": "Appointment made",
        "ActivityDate": "2026-03-08",
    }.items() <= task.items()


@pytest.mark.parametrize("action", ["create_task", "log_call"])
async def test_a_task_is_found_by_its_key_field_and_undone(bench: Bench, action: str) -> None:
    assert await bench.reconcile(action, {"subject": "Call"}) is None
    made = await bench.run(action, {"subject": "Call"})

    assert made == await bench.reconcile(action, {"subject": "Call"})
    (task,) = bench.org.store.records("Task")
    assert 32 == len(task[KEY_FIELD])
    await bench.undo(action)
    assert [] == list(bench.org.store.records("Task"))


async def test_a_task_for_an_unknown_record_is_rejected(bench: Bench) -> None:
    with pytest.raises(Rejected):
        await bench.run("create_task", {"subject": "Call back", "who_id": "003000000000001AAA"})


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Istanbul", "2026-03-09"), ("America/New_York", "2026-03-08"), ("Nowhere/At_All", "2026-03-08")],
)
async def test_a_logged_call_has_the_orgs_day(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, zone: str, day: str
) -> None:
    late = datetime(2026, 3, 8, 22, 30, tzinfo=UTC)
    monkeypatch.setattr(tasks, "org_zones", OrgZones(now=late.astimezone))
    next(bench.org.store.records("Organization"))["TimeZoneSidKey"] = zone

    for key in ("1", "2"):
        made = await bench.run("log_call", {}, key=key)
        assert day == bench.org.store.find("Task", made["task_id"])["ActivityDate"]

    assert 1 == bench.org.journal.calls["query"]


async def test_a_logged_call_has_the_day_of_the_jobs_zone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = datetime(2026, 3, 8, 22, 30, tzinfo=UTC)
    monkeypatch.setattr(tasks, "org_zones", OrgZones(now=late.astimezone))

    made = await bench.run("log_call", {"time_zone": "Asia/Tokyo"})

    assert "2026-03-09" == bench.org.store.find("Task", made["task_id"])["ActivityDate"]
    with pytest.raises(InvalidParams, match="time_zone"):
        await bench.run("log_call", {"time_zone": "Nowhere/At_All"})


async def test_a_logged_call_has_a_day_although_the_org_hides_its_zone(bench: Bench) -> None:
    del bench.org.store.objects["organization"]

    made = await bench.run("log_call", {})

    assert bench.org.store.find("Task", made["task_id"])["ActivityDate"]
