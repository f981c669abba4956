"""Dead letters as people may read them: personal data masked."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.registry import load
from connectors.sdk.connector import Connector
from connectors.sdk.personal import KEYWORD, PersonalData
from schemas.job import Job
from worker.admin.dead_letters import Letter


def view_letters(letters: Sequence[Letter], *, with_body: bool = False) -> list[dict[str, Any]]:
    """Describe letters with what their connectors declare personal masked.

    Where a connector is not installed here nobody knows what is personal, and every parameter is masked.
    """
    jobs = [letter.job() for letter in letters]
    connectors = load({job.connector for job in jobs if job is not None}).connectors
    return [
        _view(letter, job, connectors, with_body=with_body) for letter, job in zip(letters, jobs, strict=True)
    ]


def _view(
    letter: Letter, job: Job | None, connectors: Mapping[str, Connector[Any]], *, with_body: bool
) -> dict[str, Any]:
    shown, body = letter.summary(), letter.text()
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
