"""Checking requests against the discovery document that google-api-python-client ships.

Google itself ignores a good deal of what it does not know; here it is refused, so that a slip shows
during development.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from json import loads
from typing import Any, Final
from urllib.parse import unquote

from connectors.sandbox.google.faults import Refusal

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_LOCAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
#: The one field that may lack an offset, where a zone stands beside it.
_ZONED_FIELD: Final = "dateTime"


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the API."""

    #: Such as `events.insert`.
    name: str
    http_method: str
    pattern: re.Pattern[str]
    parameters: Mapping[str, Mapping[str, Any]]
    scopes: frozenset[str]
    body: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that fits the document."""

    method: Method
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]


@cache
def document() -> Mapping[str, Any]:
    """Read the Calendar API's discovery document."""
    path = files("googleapiclient") / "discovery_cache" / "documents" / "calendar.v3.json"
    read: dict[str, Any] = loads(path.read_text(encoding="utf-8"))
    return read


@cache
def methods() -> tuple[Method, ...]:
    """List the API's methods."""
    return tuple(
        _method(f"{resource}.{name}", described)
        for resource, held in document()["resources"].items()
        for name, described in held["methods"].items()
    )


def _method(name: str, described: Mapping[str, Any]) -> Method:
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape("/" + described["path"]))
    return Method(
        name,
        described["httpMethod"],
        re.compile(pattern),
        {**document()["parameters"], **described.get("parameters", {})},
        frozenset(described.get("scopes", ())),
        described.get("request", {}).get("$ref"),
    )


def find_method(http_method: str, raw_path: str) -> tuple[Method, dict[str, str]]:
    """Find the method of a path below the base, and the path's parameters.

    Raises:
        Refusal: there is none.
    """
    for method in methods():
        found = method.pattern.fullmatch(raw_path)
        if found is not None and method.http_method == http_method:
            return method, {name: unquote(value) for name, value in found.groupdict().items()}
    raise Refusal(404, "notFound", f"no method {http_method} {raw_path}")


def check(method: Method, path: Mapping[str, str], query: Mapping[str, list[str]], body: Any) -> Request:
    """Check a request's query and body.

    Raises:
        Refusal: says what does not fit.
    """
    read: dict[str, Any] = {}
    for name, values in query.items():
        described = method.parameters.get(name)
        if described is None or described.get("location") != "query":
            raise Refusal(400, "badRequest", f"{method.name} knows no parameter {name}")
        if len(values) > 1 and not described.get("repeated"):
            raise Refusal(400, "badRequest", f"{name} is given twice")
        checked = [_check_parameter(name, value, described) for value in values]
        read[name] = checked if described.get("repeated") else checked[0]
    if method.body is None:
        if body is not None:
            raise Refusal(400, "badRequest", f"{method.name} takes no body")
        return Request(method, path, read, {})
    if not isinstance(body, dict):
        raise Refusal(400, "parseError", "the body is not a JSON object")
    schema = document()["schemas"][method.body]
    _check_value("", body, schema, is_patch=method.http_method == "PATCH")
    for name, described in schema["properties"].items():
        required = described.get("annotations", {}).get("required", ())
        if f"calendar.{method.name}" in required and body.get(name) is None:
            raise Refusal(400, "required", f"{name} is required")
    return Request(method, path, read, body)


def _check_parameter(name: str, value: str, described: Mapping[str, Any]) -> Any:
    if "enum" in described and value not in described["enum"]:
        raise Refusal(400, "invalidParameter", f"{name} is none of {described['enum']}")
    kind = described["type"]
    if kind == "boolean":
        if value not in {"true", "false"}:
            raise Refusal(400, "invalidParameter", f"{name} is no boolean")
        return value == "true"
    if kind == "integer":
        if not re.fullmatch(r"-?\d{1,10}", value):
            raise Refusal(400, "invalidParameter", f"{name} is no integer")
        least, most = described.get("minimum"), described.get("maximum")
        if (least is not None and int(value) < int(least)) or (most is not None and int(value) > int(most)):
            raise Refusal(400, "invalidParameter", f"{name} is out of range")
        return int(value)
    if described.get("format") == "date-time" and not _RFC3339.fullmatch(value):
        raise Refusal(400, "badRequest", f"{name} is no RFC 3339 time with offset")
    return value


def _check_value(where: str, value: Any, schema: Mapping[str, Any], *, is_patch: bool) -> None:
    if "$ref" in schema:
        schema = document()["schemas"][schema["$ref"]]
    if value is None:
        if not is_patch:
            raise Refusal(400, "invalid", f"{where} is null")
        return
    kind = schema["type"]
    types = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "number": float}
    if kind in types and (
        not isinstance(value, types[kind]) or (kind == "integer" and isinstance(value, bool))
    ):
        raise Refusal(400, "invalid", f"{where} is no {kind}")
    if kind == "object":
        known = schema.get("properties", {})
        for name, item in value.items():
            described = known.get(name, schema.get("additionalProperties"))
            if described is None:
                raise Refusal(400, "invalid", f"{where or 'the body'} knows no {name}")
            _check_value(f"{where}.{name}".lstrip("."), item, described, is_patch=is_patch)
    elif kind == "array":
        for index, item in enumerate(value):
            _check_value(f"{where}[{index}]", item, schema["items"], is_patch=is_patch)
    elif kind == "string":
        _check_format(where, value, schema.get("format"))


def _check_format(where: str, value: str, wanted: str | None) -> None:
    if wanted == "date-time":
        pattern = _LOCAL if where.endswith(_ZONED_FIELD) else _RFC3339
        if not pattern.fullmatch(value):
            raise Refusal(400, "badRequest", f"{where} is no RFC 3339 time")
    elif wanted == "date" and not _DATE.fullmatch(value):
        raise Refusal(400, "badRequest", f"{where} is no date")
