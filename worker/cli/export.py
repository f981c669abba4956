"""`export`: AsyncAPI, JSON Schema, LLM tools and RabbitMQ definitions, all from the one definition in code."""

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.cli.output import EXIT_USAGE, errors_reported, fail

if TYPE_CHECKING:
    from connectors.sdk.connector import Action

app = typer.Typer(
    help="Print the contract and the catalogue as AsyncAPI, JSON Schema, LLM tools or RabbitMQ definitions.",
    no_args_is_help=True,
)

#: Characters of a tool's name in either dialect.
MAX_TOOL_NAME = 64

Names = Annotated[
    list[str] | None,
    typer.Option(
        "--connector", help="Only this connector; repeatable. Default: those of CONNECTORS_ENABLED."
    ),
]


@app.command()
def asyncapi(connector: Names = None) -> None:
    """Print the wire and the actions as AsyncAPI 3.1."""
    from schemas.asyncapi import ActionFacts
    from schemas.asyncapi import asyncapi as describe_wire
    from worker.settings import load_settings

    with errors_reported():
        prefix = load_settings().prefix
    facts = [
        ActionFacts(
            action.connector, action.name, action.description, action.signature.schema, result_schema(action)
        )
        for action in _actions(connector)
    ]
    _print(describe_wire(facts, prefix=prefix))


@app.command()
def jsonschema(connector: Names = None) -> None:
    """Print the JSON Schemas (2020-12) of the wire, and of each action's parameters and result."""
    import json

    from schemas.json_schema import DIALECT, FOLDER

    wire = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in ("job", "result", "progress")}
    actions = {
        f"{action.connector}.{action.name}": {
            "params": {"$schema": DIALECT, **action.signature.schema},
            "result": {"$schema": DIALECT, **result_schema(action)},
        }
        for action in _actions(connector)
    }
    _print({"wire": wire, "actions": actions})


@app.command()
def tools(
    connector: Names = None,
    dialect: Annotated[
        Literal["function", "input_schema"],
        typer.Option(help="{type: function, function: {…, parameters}}, or {name, …, input_schema}."),
    ] = "function",
) -> None:
    """Print the actions as tools that a language model may call."""
    _print([tool(action, dialect) for action in _actions(connector)])


@app.command()
def definitions() -> None:
    """Print the topology as RabbitMQ imports it, for a broker whose workers may not declare queues."""
    from worker.broker.rabbitmq_definitions import broker_definitions
    from worker.broker.topology import Topology
    from worker.settings import load_settings

    with errors_reported():
        settings = load_settings()
    _print(
        broker_definitions(
            Topology(settings.prefix), settings.enabled, reply_exchange=settings.reply_exchange
        )
    )


def tool(action: "Action[..., Any]", dialect: str) -> dict[str, Any]:
    """Return one action as a tool; its name is `connector__action`."""
    facts = {"name": tool_name(action.connector, action.name), "description": action.description}
    if dialect == "input_schema":
        return {**facts, "input_schema": action.signature.schema}
    return {"type": "function", "function": {**facts, "parameters": action.signature.schema}}


def tool_name(connector: str, action: str) -> str:
    """Return a tool's name; one that would be too long ends in a digest of the whole."""
    name = f"{connector}__{action}"
    if len(name) <= MAX_TOOL_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_TOOL_NAME - 9]}_{digest}"


def result_schema(action: "Action[..., Any]") -> dict[str, Any]:
    """Return the schema of an action's result."""
    return action.signature.returns.json_schema(mode="serialization")


def _actions(names: list[str] | None) -> "list[Action[..., Any]]":
    from connectors.registry import load
    from worker.settings import load_settings

    with errors_reported():
        wanted = names or list(load_settings().enabled)
    registry = load(wanted)
    for name in wanted:
        if name not in registry.connectors:
            fail(
                registry.broken.get(name)
                or f"no connector {name!r} is installed; `connectors list` shows the installed ones",
                EXIT_USAGE,
            )
    return [
        action
        for name in sorted(registry.connectors)
        for action in registry.connectors[name].actions.values()
    ]


def _print(document: Any) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))
