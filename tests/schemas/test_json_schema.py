"""The generated files say what the code does."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas.error import Code, CodeFacts
from schemas.job import Job, JobRefused, parse_job
from schemas.json_schema import FOLDER, documents
from schemas.result import Result, error_of

README = Path(__file__).parents[2] / "schemas" / "README.md"


def test_the_files_are_what_the_code_generates() -> None:
    for path, text in documents():
        assert text == path.read_text(), f"{path.name} is stale: run `python -m schemas.json_schema`"
    assert {path.name for path, _ in documents()} == {path.name for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize(
    "path",
    sorted(path for path in FOLDER.glob("*.json") if path.stem != "asyncapi"),
    ids=lambda path: path.stem,
)
def test_each_file_is_a_schema(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(_schema(path.stem))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tenant": "A"},
        {"metadata": {"a": 1}},
        {"surplus": 1},
        {"mode": "later"},
        {"idempotency_key": ""},
        {"locale": "english language"},
        {"params": []},
    ],
)
def test_schema_and_parser_agree_on_a_job(fields: dict[str, Any]) -> None:
    document = {"id": "a", "connector": "dummy", "action": "ping", **fields}
    valid = jsonschema.Draft202012Validator(_schema("job")).is_valid(document)

    try:
        parse_job(json.dumps(document).encode())
        parsed = True
    except JobRefused:
        parsed = False

    assert parsed == valid


def test_a_reply_fits_its_schema() -> None:
    now = datetime.now(UTC)
    result = Result(
        id="a",
        connector="dummy",
        action="ping",
        status="failed",
        error=error_of(Code.NOT_FOUND, "there is none", data={"outcome": "unknown"}),
        started_at=now,
        finished_at=now,
        duration_ms=1.5,
    )

    jsonschema.Draft202012Validator(_schema("result")).validate(_plain(result))


def test_the_readme_lists_every_code_with_its_category() -> None:
    text = README.read_text()

    for code in Code:
        facts = code.facts
        retryable = "yes" if facts.retryable else "no"
        row = (
            f"| `{code}` | {facts.category} | {retryable} | {_when_dead_lettered(facts)} "
            f"| {facts.meaning} | {facts.resolution} |"
        )
        assert row in text, f"schemas/README.md lacks the row {row}"


@pytest.mark.parametrize("field", list(Job.model_fields))
def test_the_readme_names_every_field(field: str) -> None:
    assert f"`{field}`" in README.read_text()


def _when_dead_lettered(facts: CodeFacts) -> str:
    if facts.dead_lettered:
        return "always"
    return "after the last retry" if facts.retryable else "if no caller gets it"


def _schema(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


def _plain(result: Result) -> Any:
    return json.loads(result.model_dump_json())
