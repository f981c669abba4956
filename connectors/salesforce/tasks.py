"""The actions on tasks, of which a logged call is one."""

from typing import Any

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import WRITE_ERRORS, salesforce
from connectors.salesforce.models import TaskCreated
from connectors.salesforce.org_zone import org_zones
from connectors.salesforce.params import CreateTask, LogCall
from connectors.salesforce.write_records import body_of, create, creates, find_created, undo_create


@salesforce.action(effect=creates("Task"), errors=WRITE_ERRORS)
async def create_task(params: CreateTask, ctx: Ctx) -> TaskCreated:
    """Create a task to be done."""
    named = _shared(params) | {
        "Status": params.status,
        "Priority": params.priority,
        "ActivityDate": None if params.due_date is None else params.due_date.isoformat(),
    }
    return await _create(ctx, named, params)


@create_task.reconcile
async def find_task(params: CreateTask, ctx: Ctx) -> TaskCreated | None:
    """Look up whether the task was created."""
    return await _find(ctx)


@create_task.undo
async def delete_task(ctx: Ctx, result: dict[str, Any] | None) -> None:
    """Delete the task that was created."""
    await undo_create(SalesforceApi(ctx, is_compensation=True), "Task", result["task_id"] if result else None)


@salesforce.action(effect=creates("Task"), errors=WRITE_ERRORS)
async def log_call(params: LogCall, ctx: Ctx) -> TaskCreated:
    """Log a call that took place, on the contact or lead and the record that it was about."""
    day = params.call_date or await org_zones.today(SalesforceApi(ctx), params.time_zone)
    named = _shared(params) | {
        "TaskSubtype": "Call",
        "Status": "Completed",
        "CallType": params.direction.title(),
        "CallDurationInSeconds": params.duration_seconds,
        "CallDisposition": params.result,
        "ActivityDate": day.isoformat(),
    }
    return await _create(ctx, named, params)


@log_call.reconcile
async def find_call(params: LogCall, ctx: Ctx) -> TaskCreated | None:
    """Look up whether the call was logged."""
    return await _find(ctx)


@log_call.undo
async def delete_call(ctx: Ctx, result: dict[str, Any] | None) -> None:
    """Delete the logged call."""
    await undo_create(SalesforceApi(ctx, is_compensation=True), "Task", result["task_id"] if result else None)


def _shared(params: CreateTask | LogCall) -> dict[str, Any]:
    return {
        "Subject": params.subject,
        "Description": params.description,
        "WhoId": params.who_id,
        "WhatId": params.what_id,
        "OwnerId": params.owner_id,
    }


async def _create(ctx: Ctx, named: dict[str, Any], params: CreateTask | LogCall) -> TaskCreated:
    api = SalesforceApi(ctx)
    task = await create(api, "Task", await body_of(api, "Task", named, params.fields), params)
    return TaskCreated(task_id=task.id, created=task.is_new)


async def _find(ctx: Ctx) -> TaskCreated | None:
    task = await find_created(SalesforceApi(ctx), "Task")
    return None if task is None else TaskCreated(task_id=task.id, created=task.is_new)
