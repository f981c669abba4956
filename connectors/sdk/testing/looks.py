"""What the contract looks at: schemas, states, words, and how late the loop turns."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from connectors.sdk.connector import Action
from connectors.sdk.testing.ran import Ran

#: Seconds between looks at how late the loop turns.
LOOK_S: Final = 0.01
#: Letters of many scripts, one beyond the basic plane, one that changes its length in lower case, and
#: what quotes, paths and queries are made of.
UNICODE: Final = "Zoë İı 東京 🙂 \"'\\/?&=%+<>{}"


async def worst_lag_s() -> float:
    """Measure, until cancelled, how late the loop turns at worst."""
    worst_s, loop = 0.0, asyncio.get_running_loop()
    turned_at = loop.time()
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            worst_s = max(worst_s, loop.time() - turned_at - LOOK_S)
            turned_at = loop.time()
    except asyncio.CancelledError:
        return max(worst_s, loop.time() - turned_at - LOOK_S)


def are_alike(one: Any, other: Any) -> bool:
    """Compare two providers' states: ids and times that they drew differ, how much there is does not."""
    if one == other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return len(one) == len(other)
    if isinstance(one, list | tuple | set | frozenset) and isinstance(other, list | tuple | set | frozenset):
        return len(one) == len(other)
    return False


def schema_fault(action: Action[..., Any]) -> str | None:
    """Return what is wrong with the schema of an action's parameters."""
    schema = action.signature.schema
    json.dumps(schema)
    if schema.get("additionalProperties") is not False:
        return "takes unknown parameters"
    untyped = [
        name
        for name, part in schema["properties"].items()
        if not part.keys() & {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}
        and not part.get("description")
    ]
    return (
        f"has parameters of any type, and does not describe them: {', '.join(untyped)}" if untyped else None
    )


def return_fault(action: Action[..., Any]) -> str | None:
    """Return what is wrong with what an action says it returns."""
    try:
        schema = action.signature.returns.json_schema(mode="serialization")
    except Exception as error:  # pydantic has many names for it
        return f"returns what has no schema: {type(error).__name__}"
    return None if schema else "does not say what it returns; annotate it"


def words_of(ran: Ran) -> str:
    """Return what the caller is told in words; `data` may quote."""
    error = ran.result.error
    return "" if error is None else f"{error.message} {error.say} {[each.issue for each in error.details]}"


def with_unicode(params: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Put hostile text into each text parameter in turn, where its schema leaves it free."""
    for name, value in params.items():
        part = schema["properties"].get(name, {})
        if isinstance(value, str) and not part.keys() & {"pattern", "format", "enum", "const"}:
            yield {**params, name: UNICODE[: part.get("maxLength", len(UNICODE))]}
