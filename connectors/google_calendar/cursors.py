"""Cursors of listings: where the next answer goes on, bound to the question that they belong to."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final

from pydantic import BaseModel

from connectors.sdk.http.request import invalid

_NOT_ASKED: Final = frozenset({"cursor", "limit", "fields"})


def write_cursor(params: BaseModel, **place: Any) -> str:
    """Return a cursor for a place in the answer to a question."""
    told = json.dumps({**place, "of": _digest(params)}, separators=(",", ":"))
    return urlsafe_b64encode(told.encode()).decode().rstrip("=")


def read_cursor(params: BaseModel, cursor: str) -> dict[str, Any]:
    """Return the place that a cursor stands for.

    Raises:
        InvalidParams: it is not a cursor, or belongs to another question.
    """
    try:
        place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        place = None
    if not isinstance(place, dict) or place.pop("of", None) != _digest(params):
        raise invalid("cursor", "belongs to another question; repeat the parameters of the one before")
    return place


def _digest(params: BaseModel) -> str:
    asked = {name: str(value) for name, value in params if name not in _NOT_ASKED}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
