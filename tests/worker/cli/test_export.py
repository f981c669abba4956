"""`export`, `describe`, `check`: the catalogue in other forms, from the one definition."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from tests.conftest import PLUGIN
from worker.cli.app import app
from worker.cli.export import MAX_TOOL_NAME, tool_name

DRAFT = jsonschema.Draft202012Validator


@pytest.fixture(autouse=True)
def asyncio_log() -> Iterator[None]:
    """A command silences asyncio's log for the rest of its process, which here goes on."""
    log = logging.getLogger("asyncio")
    before = log.level
    yield
    log.setLevel(before)


@pytest.fixture(autouse=True)
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTORS_ENABLED", "dummy,http,effects")
    monkeypatch.syspath_prepend(str(PLUGIN))


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
    assert "Say it back." == echo["function"]["description"]


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


def test_describe_shows_what_a_caller_needs() -> None:
    done = CliRunner().invoke(app, ["describe", "effects.find_caller", "--json"])
    (action,) = json.loads(done.stdout)["actions"]

    assert {"effect": "read", "returns": {"type": "string"}}.items() <= action.items()
    assert action["params"]["properties"]["phone"]["x-personal"] is True
    assert "phone: string, required, personal" in CliRunner().invoke(app, ["describe", "effects"]).stdout
    assert "base_url" in CliRunner().invoke(app, ["describe", "http"]).stdout


def test_the_call_line_can_be_copied_with_any_example() -> None:
    import shlex

    from connectors.sdk import Connector
    from worker.cli.catalogue import facts_of

    quoting = Connector("quoting")

    @quoting.action
    async def say(text: str = "it's") -> str:
        """Say it."""
        return text

    say.signature.model.model_fields["text"].examples = ["it's"]

    words = shlex.split(facts_of(quoting, say)["example"])

    assert {"text": "it's"} == json.loads(words[-1])


def test_check_by_name_holds_what_is_declared_to_the_contract(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["check", "effects", "--json"])

    assert 0 == done.exit_code, done.output
    assert 3 == len(json.loads(done.stdout))
    assert "only checks without a provider" in done.stderr


def test_check_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "test_bad.py").write_text(
        "from connectors.sdk import Connector\n"
        "from connectors.sdk.testing import ConnectorContract\n"
        "bad = Connector('bad')\n"
        "@bad.action\n"
        "async def work():\n"
        "    return 1\n"
        "class TestBad(ConnectorContract):\n"
        "    connector = bad\n"
    )

    done = CliRunner().invoke(app, ["check", str(tmp_path)])

    assert 1 == done.exit_code
    assert "✗ Each action has a docstring" in done.stdout
    assert "<action bad.work> has no docstring" in done.stdout
    assert "✓ Each parameter has a type" in done.stdout


def test_check_of_a_folder_without_contracts_is_refused(tmp_path: Any) -> None:
    done = CliRunner().invoke(app, ["check", str(tmp_path)])

    assert (2, True) == (done.exit_code, "subclass of ConnectorContract" in done.stderr)
