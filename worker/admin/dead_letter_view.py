"""Dead letters as people may read them: personal data masked."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.registry import load
from connectors.sdk.connector import Connector
from connectors.sdk.personal import KEYWORD, PersonalData
from schemas.job import Job
from worker.admin.dead_letters import DeadLetterMessage


def view_dead_letters(
    dead_letters: Sequence[DeadLetterMessage], *, with_body: bool = False
) -> list[dict[str, Any]]:
    """Return dead letters with the personal data masked that their connectors declare.

    If a connector is not installed here, nothing says what is personal, and every parameter is masked.
    """
    jobs = [dead_letter.job() for dead_letter in dead_letters]
    connectors = load({job.connector for job in jobs if job is not None}).connectors
    return [
        _view(dead_letter, job, connectors, with_body=with_body)
        for dead_letter, job in zip(dead_letters, jobs, strict=True)
    ]


def _view(
    dead_letter: DeadLetterMessage,
    job: Job | None,
    connectors: Mapping[str, Connector[Any]],
    *,
    with_body: bool,
) -> dict[str, Any]:
    shown, body = dead_letter.summary(), dead_letter.text()
    if job is not None:  # what is no job has no parameters
        personal = _personal(job, connectors)
        shown["error"] = personal.mask(shown["error"])
        params = {name: personal.mask(value, name) for name, value in job.params.items()}
        if params != job.params:
            body = json.dumps(
                {**job.model_dump(mode="json", exclude_unset=True), "params": params}, ensure_ascii=False
            )
    return {**shown, "body": body} if with_body else shown


def _personal(job: Job, connectors: Mapping[str, Connector[Any]]) -> PersonalData:
    connector = connectors.get(job.connector)
    if connector is None:
        return PersonalData.of(job.params, {"additionalProperties": {KEYWORD: True}})
    action = connector.actions.get(job.action)
    return PersonalData() if action is None else action.signature.personal(job.params)
