"""Cursors of listings: the start of the next answer, bound to the question it belongs to."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from connectors.sdk.errors import InvalidParams

_NOT_ASKED: Final = frozenset({"cursor", "limit", "fields"})


class ListingPlace(BaseModel):
    """A place in the answer to a question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: From when on the first answer listed: "now" of then.
    since: AwareDatetime
    #: Rows of the page that earlier answers have given.
    skip: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    #: Google's own token of the page, and the size of its pages, which the token is bound to.
    page: Annotated[str, Field(max_length=3000)] | None = None
    size: Annotated[int, Field(ge=1, le=2500)] | None = None


def write_cursor(params: BaseModel, place: ListingPlace) -> str:
    """Return a cursor for a place in the answer to a question."""
    written = place.model_dump_json(exclude_defaults=True)
    return urlsafe_b64encode(f"{_digest(params)}{written}".encode()).decode().rstrip("=")


def read_cursor(params: BaseModel, cursor: str | None) -> ListingPlace | None:
    """Return the place that a cursor stands for; None without one.

    Raises:
        InvalidParams: it is not a cursor, or belongs to another question.
    """
    if cursor is None:
        return None
    try:
        written = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        digest = _digest(params)
        if written.startswith(digest):
            return ListingPlace.model_validate_json(written.removeprefix(digest))
    except ValueError:  # pydantic's errors are, too
        pass
    raise InvalidParams.field(
        "cursor", "belongs to another question; repeat the parameters of the one before"
    )


def _digest(params: BaseModel) -> str:
    asked = {name: str(value) for name, value in params if name not in _NOT_ASKED}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
