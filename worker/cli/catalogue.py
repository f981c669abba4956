"""`list` and `describe`: the installed connectors, and how to call them."""

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import EXIT_USAGE, fail, print_json, print_table

if TYPE_CHECKING:
    from connectors.registry import Installed
    from connectors.sdk.connector import Action, Connector


def list_connectors(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the installed connectors and their actions."""
    from connectors.registry import load
    from worker.settings import load_settings

    enabled = set(load_settings().enabled)
    rows = [
        {
            "connector": entry.name,
            "enabled": entry.name in enabled,
            "distribution": entry.distribution,
            "version": entry.version,
            "actions": sorted(entry.connector.actions) if entry.connector else [],
            "isolated": sorted(_isolated(entry)),
            "fault": entry.fault,
        }
        for entry in load().installed.values()
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["connector", "enabled", "distribution", "version", "isolation", "actions"],
        [
            (
                row["connector"],
                "yes" if row["enabled"] else "no",
                row["distribution"],
                row["version"],
                _shown_isolation(row["isolated"], row["actions"]),  # type: ignore[arg-type]
                row["fault"] or " ".join(row["actions"]),  # type: ignore[arg-type]
            )
            for row in rows
        ],
        empty="No connector is installed.",
    )


def describe(
    name: Annotated[str, typer.Argument(metavar="CONNECTOR[.ACTION]")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a connector or one action: parameters, effect, errors, and a line to call it."""
    from connectors.registry import load

    connector_name, _, action_name = name.partition(".")
    entry = load([connector_name]).installed.get(connector_name)
    if entry is None:
        fail(
            f"no connector {connector_name!r} is installed; `connectors list` shows the installed ones",
            EXIT_USAGE,
        )
    if entry.connector is None:
        fail(entry.fault or f"{connector_name} does not load")
    connector = entry.connector
    if action_name and action_name not in connector.actions:
        fail(
            f"{connector_name} has no action {action_name!r}; it has {', '.join(connector.actions)}",
            EXIT_USAGE,
        )
    chosen = [connector.actions[action_name]] if action_name else list(connector.actions.values())
    described = {
        "connector": connector.name,
        "title": connector.title,
        "version": entry.version,
        "credential": None if connector.credential is None else connector.credential.model_json_schema(),
        "actions": [
            {**facts_of(connector, action), "isolation": entry.isolation_of(action)} for action in chosen
        ],
    }
    if as_json:
        print_json(described)
        return
    print(f"{connector.title} ({connector.name} {entry.version})")
    if connector.credential is not None:
        print("credential, stored by `connectors credentials put`:")
        for field, schema in connector.credential.model_json_schema()["properties"].items():
            needed = "" if connector.credential.model_fields[field].is_required() else " (optional)"
            text = f": {schema['description']}" if "description" in schema else ""
            print(f"    {field}{needed}{text}")
    for action in described["actions"]:  # type: ignore[union-attr]
        _print_action(action)  # type: ignore[arg-type]


def _isolated(entry: "Installed") -> list[str]:
    """Return the actions that run in a process of their connector's."""
    actions = () if entry.connector is None else entry.connector.actions.values()
    return [action.name for action in actions if entry.isolation_of(action) == "process"]


def _shown_isolation(isolated: list[str], actions: list[str]) -> str:
    if not actions:
        return ""
    return "process" if isolated == actions else "both" if isolated else "worker"


def facts_of(connector: "Connector[Any]", action: "Action[..., Any]") -> dict[str, Any]:
    """Return what a caller needs to know about one action."""
    from connectors.sdk.effects import Effect
    from connectors.sdk.params import example_of
    from worker.cli.export import result_schema

    example = shlex.quote(json.dumps(example_of(action.signature.model), ensure_ascii=False))
    return {
        "action": f"{connector.name}.{action.name}",
        "description": action.description,
        "effect": action.effect.value if isinstance(action.effect, Effect) else "by its parameters",
        "can_undo": action.can_undo,
        "timeout_s": action.timeout_s,
        "can_reconcile": action.can_reconcile,
        "errors": [code.value for code in action.errors],
        "params": action.signature.schema,
        "returns": result_schema(action),
        "example": f"connectors call {connector.name} {action.name} --params {example}",
    }


def _print_action(action: dict[str, Any]) -> None:
    undo = ", can be undone" if action["can_undo"] else ""
    isolated = ", in its own process" if action["isolation"] == "process" else ""
    print(f"\n{action['action']}  ({action['effect']}, {action['timeout_s']:g} s{undo}{isolated})")
    print(f"  {action['description'].splitlines()[0] if action['description'] else ''}")
    required = set(action["params"].get("required", ()))
    for name, schema in action["params"]["properties"].items():
        kind = _kind_of(schema)
        default = "required" if name in required else f"default {json.dumps(schema.get('default'))}"
        personal = ", personal" if schema.get("x-personal") else ""
        text = f": {schema['description']}" if "description" in schema else ""
        print(f"    {name}: {kind}, {default}{personal}{text}")
    if action["errors"]:
        print(f"  may fail with {', '.join(action['errors'])}")
    print(f"  {action['example']}")


def _kind_of(schema: dict[str, Any]) -> str:
    """Return a parameter's type in a few words; `null` is left out."""
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema.get("enum", [schema.get("const")]))
    if choices := schema.get("anyOf", schema.get("oneOf")):
        kinds = [kind for kind in map(_kind_of, choices) if kind != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = schema.get("type") or schema.get("$ref", "").rpartition("/")[2] or "any JSON"
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_kind_of(schema['items'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
