"""`export`: the contract and the catalogue in other forms, from the one definition."""

import json
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from worker.cli.app import app
from worker.cli.export import MAX_TOOL_NAME, tool_name

DRAFT = jsonschema.Draft202012Validator


def exported(*words: str) -> Any:
    done = CliRunner().invoke(app, ["export", *words])
    assert 0 == done.exit_code, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("dialect", "at"),
    [
        ("function", lambda tool: tool["function"]["parameters"]),
        ("input_schema", lambda tool: tool["input_schema"]),
    ],
)
def test_tools_are_json_schema_in_both_dialects(dialect: str, at: Any) -> None:
    tools = exported("tools", "--dialect", dialect)

    for tool in tools:
        DRAFT.check_schema(at(tool))
        assert "object" == at(tool)["type"]
    names = [(tool.get("function") or tool)["name"] for tool in tools]
    assert {"dummy__echo", "http__request", "effects__book"} <= set(names)
    assert len(names) == len(set(names))


def test_a_tools_arguments_are_what_the_action_takes() -> None:
    (echo,) = (tool for tool in exported("tools") if tool["function"]["name"] == "dummy__echo")
    validator = DRAFT(echo["function"]["parameters"])

    assert validator.is_valid({"message": "hi"})
    assert not validator.is_valid({"massage": "hi"})
    assert "Return the message." == echo["function"]["description"]


def test_long_names_are_cut_and_stay_apart() -> None:
    one, other = tool_name("c" * 60, "a" * 60), tool_name("c" * 60, "a" * 59 + "b")

    assert MAX_TOOL_NAME == len(one) == len(other)
    assert one != other


def test_every_action_has_two_schemas() -> None:
    schemas = exported("jsonschema")

    assert {"job", "result", "progress"} == schemas["wire"].keys()
    for action in schemas["actions"].values():
        DRAFT.check_schema(action["params"])
        DRAFT.check_schema(action["result"])
    assert "x-personal" in json.dumps(schemas["actions"]["effects.find_caller"]["params"])


def test_the_wire_is_exported_with_the_actions_that_are_enabled() -> None:
    document = exported("asyncapi", "--connector", "dummy")

    assert "dummy.echo.job" in document["channels"]["jobs"]["messages"]
    assert "http.request.job" not in document["channels"]["jobs"]["messages"]


def test_the_definitions_hold_the_queues_that_are_enabled() -> None:
    queues = {queue["name"] for queue in exported("definitions")["queues"]}

    assert {"connectors.jobs.effects", "connectors.jobs.dummy.bulk", "connectors.dead"} <= queues


def test_an_unknown_connector_is_named() -> None:
    done = CliRunner().invoke(app, ["export", "tools", "--connector", "fax"])

    assert (2, "connectors: no connector 'fax' is installed") == (done.exit_code, done.stderr.split(";")[0])
