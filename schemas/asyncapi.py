"""The wire as AsyncAPI 3.1: what a publisher sends and receives, with the actions of a worker's connectors.

AsyncAPI's schemas are JSON Schema draft 7 and a bit: `$defs` move to the components, `prefixItems` is
`items`, and pydantic's `discriminator` object, which would be invalid there, is left out (the `oneOf`
beside it says as much).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from schemas.job import Job
from schemas.result import PROGRESS_TYPE, RESULT_TYPE, Progress, Result

VERSION: Final = "3.1.0"
_REFS: Final = "#/components/schemas/"

#: The AMQP properties that matter, as AsyncAPI shows them: headers.
_JOB_PROPERTIES: Final = {
    "replyTo": {"type": "string", "description": "The property reply_to: your queue; absent, no reply."},
    "correlationId": {"type": "string", "description": "The property correlation_id, returned in the reply."},
    "messageId": {
        "type": "string",
        "description": "The property message_id: the id, if the body has none.",
    },
    "traceparent": {"type": "string", "description": "W3C trace context."},
}


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """What the document says about one action."""

    connector: str
    action: str
    description: str
    #: JSON schemas of pydantic's.
    params: Mapping[str, Any]
    result: Mapping[str, Any]


def asyncapi(actions: Iterable[ActionFacts] = (), *, prefix: str = "connectors") -> dict[str, Any]:
    """Return the document; with actions, it has a message for each of their jobs and replies, too."""
    schemas: dict[str, Any] = {}
    for name, model, mode in (("Job", Job, "validation"), ("Result", Result, "serialization")):
        _add(schemas, name, _schema_of(model, mode))
    _add(schemas, "Progress", _schema_of(Progress, "serialization"))
    # The id may come as the property message_id, which the body's schema does not see.
    schemas["Job"]["required"].remove("id")
    jobs: dict[str, Any] = {"job": _message("A job", "Job", headers=_JOB_PROPERTIES)}
    replies: dict[str, Any] = {
        "result": _message("The result of a job", "Result", type_name=RESULT_TYPE),
        "progress": _message("How far a job has come; best effort", "Progress", type_name=PROGRESS_TYPE),
    }
    for facts in actions:
        _add_action(schemas, jobs, replies, facts)
    components = {f"{name}Message": message for name, message in (jobs | replies).items()}
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "connectors-service",
            "version": "1",
            "description": "Connector-action jobs and their replies. The document is written from the worker's "
            "side: it receives jobs and sends replies.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "jobs": _jobs_channel(jobs, prefix),
            "replies": {
                "address": None,
                "description": "The queue that the job's reply_to names.",
                "messages": _refs(replies),
            },
        },
        "operations": {
            "runJob": {
                "action": "receive",
                "summary": "Run a job and send its reply.",
                "channel": {"$ref": "#/channels/jobs"},
                "messages": [{"$ref": f"#/channels/jobs/messages/{name}"} for name in jobs],
                "bindings": {"amqp": {"ack": True, "bindingVersion": "0.3.0"}},
                "reply": {
                    "address": {
                        "location": "$message.header#/replyTo",
                        "description": "The property reply_to of the job.",
                    },
                    "channel": {"$ref": "#/channels/replies"},
                    "messages": [{"$ref": f"#/channels/replies/messages/{name}"} for name in replies],
                },
            }
        },
        "components": {"messages": components, "schemas": schemas},
    }


def _jobs_channel(messages: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        "address": "{connector}.{action}",
        "description": "The routing key; append `.bulk` for work that no caller waits for.",
        "parameters": {
            "connector": {"description": "As the job names it."},
            "action": {"description": "As the job names it."},
        },
        "messages": _refs(messages),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": f"{prefix}.jobs", "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _add_action(
    schemas: dict[str, Any], jobs: dict[str, Any], replies: dict[str, Any], facts: ActionFacts
) -> None:
    name = f"{facts.connector}.{facts.action}"
    _add(schemas, f"{name}.params", facts.params)
    _add(schemas, f"{name}.data", facts.result)
    for schema, base, fields in (
        (f"{name}.job", "Job", {"params": f"{name}.params"}),
        (f"{name}.result", "Result", {"data": f"{name}.data"}),
    ):
        constants = {"connector": {"const": facts.connector}, "action": {"const": facts.action}}
        parts: dict[str, Any] = {field: {"$ref": _REFS + part} for field, part in fields.items()}
        if base == "Result":
            parts = {field: {"oneOf": [part, {"type": "null"}]} for field, part in parts.items()}
        schemas[schema] = {
            "allOf": [{"$ref": _REFS + base}, {"type": "object", "properties": constants | parts}]
        }
    summary = (facts.description.strip().splitlines() or [name])[0]
    jobs[f"{name}.job"] = _message(summary, f"{name}.job", headers=_JOB_PROPERTIES, name=name)
    replies[f"{name}.result"] = _message(
        f"The reply of {name}", f"{name}.result", type_name=RESULT_TYPE, name=name
    )


def _message(
    summary: str,
    schema: str,
    *,
    headers: Mapping[str, Any] | None = None,
    type_name: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    properties: dict[str, Any] = dict(headers or {"correlationId": _JOB_PROPERTIES["correlationId"]})
    if type_name is not None:
        properties["type"] = {"type": "string", "const": type_name, "description": "The property type."}
    return {
        "name": name or schema,
        "summary": summary,
        "contentType": "application/json",
        "headers": {"type": "object", "properties": properties},
        "correlationId": {"location": "$message.header#/correlationId"},
        "payload": {"$ref": _REFS + schema},
    }


def _refs(messages: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}Message"} for name in messages}


def _schema_of(model: type[BaseModel], mode: Any) -> dict[str, Any]:
    return model.model_json_schema(mode=mode)


def _add(schemas: dict[str, Any], name: str, schema: Mapping[str, Any]) -> None:
    """Add a schema and its definitions to the components, each under a name of its own."""
    parts = dict(schema)
    for part, definition in parts.pop("$defs", {}).items():
        schemas[f"{name}.{_plain(part)}"] = _draft7(definition, name)
    schemas[name] = _draft7(parts, name)


def _draft7(part: Any, owner: str) -> Any:
    if isinstance(part, list):
        return [_draft7(item, owner) for item in part]
    if not isinstance(part, Mapping):
        return part
    turned: dict[str, Any] = {}
    for key, value in part.items():
        if key == "properties":
            turned[key] = {name: _draft7(schema, owner) for name, schema in value.items()}
        elif key == "$ref":
            turned[key] = f"{_REFS}{owner}.{_plain(value.rpartition('/')[2])}"
        elif key in {"default", "examples", "enum", "const"}:
            turned[key] = value
        elif key == "prefixItems":
            turned["items"] = _draft7(value, owner)
        elif not (key == "discriminator" or (key == "items" and "prefixItems" in part)):
            turned[key] = _draft7(value, owner)
    return turned


def _plain(name: str) -> str:
    """Return a name with only the letters that a component may have."""
    return "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)
