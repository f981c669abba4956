"""The AsyncAPI document: valid by its own schema and by the official parser, and true to the code."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from connectors.dummy import dummy
from connectors.http_request import http
from connectors.sdk import Connector, Personal
from schemas.asyncapi import ActionFacts, asyncapi

#: AsyncAPI 3.1's own schema (spec-json-schemas, Apache License 2.0), its descriptions left out.
OFFICIAL = json.loads((Path(__file__).parents[1] / "support" / "asyncapi-3.1.0.json").read_text())

PARSE = """
const { Parser } = require('@asyncapi/parser');
const text = require('fs').readFileSync(0, 'utf8');
new Parser().parse(text).then(({ document, diagnostics }) => {
  console.log(JSON.stringify({
    faults: diagnostics.filter((each) => each.severity < 2).map((each) => `${each.path.join('.')}: ${each.message}`),
    messages: document ? document.allMessages().all().length : 0,
  }));
});
"""

odd = Connector("odd")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    owner: Personal[str]


@odd.action
async def groom(
    pet: Annotated[Cat | Dog, Field(discriminator="kind")], span: tuple[int, str], tags: dict[str, Cat]
) -> list[Cat | Dog]:
    """Groom a pet.

    Slowly.
    """
    return [pet]


def facts() -> list[ActionFacts]:
    return [
        ActionFacts(
            action.connector,
            action.name,
            action.description,
            action.signature.schema,
            action.signature.returns.json_schema(mode="serialization"),
        )
        for connector in (dummy, http, odd)
        for action in connector.actions.values()
    ]


@pytest.mark.parametrize("document", [asyncapi(), asyncapi(facts(), prefix="other")], ids=["wire", "actions"])
def test_it_is_valid_by_its_own_schema(document: dict[str, Any]) -> None:
    faults = jsonschema.Draft7Validator(OFFICIAL).iter_errors(document)

    assert [] == [f"{fault.json_path}: {fault.message[:200]}" for fault in faults]


def test_the_schema_finds_what_is_wrong() -> None:
    document = asyncapi()
    document["operations"]["runJob"]["action"] = "dance"

    assert list(jsonschema.Draft7Validator(OFFICIAL).iter_errors(document))


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi(facts())

    for reference in _references(document):
        part: Any = document
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]
        assert part


def test_the_asyncapi_reply_address_is_reply_to() -> None:
    operation = asyncapi()["operations"]["runJob"]

    assert "$message.header#/replyTo" == operation["reply"]["address"]["location"]
    assert "receive" == operation["action"]


def test_it_names_each_action_and_the_prefix_in_force() -> None:
    document = asyncapi(facts(), prefix="other")

    assert "other.jobs" == document["channels"]["jobs"]["bindings"]["amqp"]["exchange"]["name"]
    assert {"dummy.echo.job", "odd.groom.job", "job"} <= document["channels"]["jobs"]["messages"].keys()
    assert "Groom a pet." == document["components"]["messages"]["odd.groom.jobMessage"]["summary"]


def test_what_draft_7_does_not_know_is_put_otherwise() -> None:
    text = json.dumps(asyncapi(facts()))

    for keyword in ('"discriminator"', '"prefixItems"', '"$defs"'):
        assert keyword not in text
    assert '"x-personal": true' in text


def test_a_job_that_the_worker_takes_fits_the_document() -> None:
    schemas = asyncapi(facts())["components"]["schemas"]
    validator = jsonschema.Draft7Validator(
        {"$ref": "#/components/schemas/dummy.echo.job", "components": {"schemas": schemas}}
    )
    job = {"id": "a", "connector": "dummy", "action": "echo", "params": {"message": "hi"}}

    assert validator.is_valid(job)
    assert not validator.is_valid({**job, "action": "ping"})
    assert not validator.is_valid({**job, "params": {"massage": "hi"}})


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official parser, from the package registry."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing: the official AsyncAPI parser runs on Node 18 or later")
    folder = tmp_path_factory.mktemp("parser")
    installed = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "@asyncapi/parser@3"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == installed.returncode, f"npm install @asyncapi/parser: {installed.stderr[-2000:]}"
    return folder


@pytest.mark.registry
@pytest.mark.timeout(400)
@pytest.mark.parametrize("document", [asyncapi(), asyncapi(facts())], ids=["wire", "actions"])
def test_it_is_valid_by_the_official_parser(parser: Path, document: dict[str, Any]) -> None:
    parsed = subprocess.run(
        ["node", "-e", PARSE],
        cwd=parser,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert 0 == parsed.returncode, parsed.stderr[-2000:]
    said = json.loads(parsed.stdout)
    assert [] == said["faults"]
    assert len(document["components"]["messages"]) == said["messages"]


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for item in part:
            yield from _references(item)
