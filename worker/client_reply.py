"""Reading replies, those of a newer worker too: what is unknown is ignored, what failed stays a failure."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.error import Category, Code, Error
from schemas.result import Progress, Result


class UnreadableReply(ValueError):
    """A reply that is not one by the contract; the message says where."""


def read_result(body: bytes) -> Result:
    """Return a result; a code that this client does not know stays as the text that was sent.

    Raises:
        UnreadableReply: it is not a result by the contract.
    """
    fields = _object(body)
    error = fields.get("error")
    code = str(error.get("code")) if isinstance(error, dict) else None
    if isinstance(error, dict):
        fields["error"] = _known_error(error)
    fields["version"] = 1  # a newer worker's reply is read for what is known of it
    try:
        result = Result.model_validate(_known(Result, fields))
    except ValidationError as invalid:
        raise UnreadableReply(_where(invalid)) from None
    if result.error is None or result.error.code == code:
        return result
    return result.model_copy(update={"error": result.error.model_copy(update={"code": code})})


def read_progress(body: bytes) -> Progress | None:
    """Return a progress message; None if it is not one that this client knows."""
    try:
        return Progress.model_validate({**_known(Progress, _object(body)), "version": 1})
    except (ValidationError, UnreadableReply):
        return None


def _known_error(error: dict[str, Any]) -> dict[str, Any]:
    known = _known(Error, error)
    details = known.get("details")
    if isinstance(details, list):
        known["details"] = [
            {name: each[name] for name in ("field", "issue") if name in each}
            for each in details
            if isinstance(each, dict)
        ]
    if known.get("code") not in {code.value for code in Code}:
        known["code"] = Code.INTERNAL_ERROR.value
    if known.get("category") not in {category.value for category in Category}:
        known["category"] = Category.UNKNOWN.value
    return known


def _known(model: type[BaseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in model.model_fields}


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadableReply("it is not JSON") from None
    if not isinstance(fields, dict):
        raise UnreadableReply("it is not a JSON object")
    return fields


def _where(invalid: ValidationError) -> str:
    first = invalid.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the reply'}: {first['msg']}"
