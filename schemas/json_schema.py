"""The wire as JSON Schema 2020-12 and AsyncAPI: `python -m schemas.json_schema` writes the files.

A test compares them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from schemas.asyncapi import asyncapi
from schemas.job import Job
from schemas.result import Progress, Result

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: The folder of the generated files.
FOLDER: Final = Path(__file__).parent / "json"

_MODELS: Final[dict[str, type[BaseModel]]] = {"job": Job, "result": Result, "progress": Progress}


def documents() -> Iterator[tuple[Path, str]]:
    """Yield each file's path and content."""
    for name, model in _MODELS.items():
        schema: dict[str, Any] = {"$schema": DIALECT, **model.model_json_schema(mode=_mode(model))}
        if model is Job:
            # The id may come as the AMQP property message_id, which this schema does not see.
            schema["required"] = [field for field in schema["required"] if field != "id"]
        yield FOLDER / f"{name}.json", _text(schema)
    yield FOLDER / "asyncapi.json", _text(asyncapi())


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _mode(model: type[BaseModel]) -> Any:
    return "validation" if model is Job else "serialization"


if __name__ == "__main__":
    for path, text in documents():
        path.write_text(text)
        sys.stdout.write(f"{path.name}\n")
