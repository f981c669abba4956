"""Cursors of a query: where its rest begins, written so that a caller can pass it back.

Salesforce pages by a locator, which lives for two days. A rest that begins inside the first page has none: the
query is then run again, and the records before are skipped.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from connectors.sdk.errors import InvalidParams

_CURSOR: Final = re.compile(r"([0-9a-f]{8})\.(first|[A-Za-z0-9]{1,40}-[0-9]{1,9})\.([0-9]{1,4})", re.ASCII)
_FIRST: Final = "first"


@dataclass(frozen=True, slots=True)
class QueryPlace:
    """A place in the result of a query."""

    #: The page, as Salesforce names it; None: the first page.
    page: str | None
    #: Records of the page that come before the place.
    skip: int


def write_cursor(place: QueryPlace, soql: str) -> str:
    """Return the cursor of a place."""
    return f"{_digest(soql)}.{place.page or _FIRST}.{place.skip}"


def read_cursor(cursor: str, soql: str) -> QueryPlace:
    """Return the place of a cursor.

    Raises:
        InvalidParams: it is not a cursor of this query.
    """
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidParams.field("cursor", "is not a cursor that query returned")
    if found[1] != _digest(soql):
        raise InvalidParams.field("cursor", "belongs to another query; soql and bindings must stay the same")
    return QueryPlace(None if found[2] == _FIRST else found[2], int(found[3]))


def _digest(soql: str) -> str:
    return hashlib.sha256(soql.encode()).hexdigest()[:8]
