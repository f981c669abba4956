"""Query results, read page by page, as plain JSON."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.salesforce.client import Org, SalesforceApi
from connectors.salesforce.error_mapping import reason_of
from connectors.salesforce.query_cursor import QueryPlace
from connectors.sdk.errors import InvalidParams, NotFound, Sent, Unavailable

#: The smallest and the largest page that Salesforce returns.
MIN_PAGE: Final = 200
MAX_PAGE: Final = 2000
#: Most further pages of sub-queries that one query reads.
MAX_CHILD_PAGES: Final = 20

_NEXT: Final = re.compile(r"/services/data/v[0-9.]{1,6}/query/([A-Za-z0-9]{1,40}-[0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query."""

    records: list[dict[str, Any]]
    #: How many records match.
    total: int
    #: Whether there are more than `records`.
    truncated: bool
    #: Where the rest begins; None if there is none.
    rest: QueryPlace | None = None


async def query_rows(api: SalesforceApi, soql: str, *, limit: int, start: QueryPlace | None = None) -> Rows:
    """Run a query, and follow its pages until there are enough records.

    Args:
        start: where to begin, from an earlier result's `rest`.

    Raises:
        InvalidParams: the page of `start` has expired.
    """
    page_size = min(max(limit, MIN_PAGE), MAX_PAGE)
    headers = {"Sforce-Query-Options": f"batchSize={page_size}"}
    page, skip = (None, 0) if start is None else (start.page, start.skip)
    end = skip + limit
    answer = await _first_page(api, soql, headers) if page is None else await _old_page(api, page, headers)
    found, before_page = records_of(answer), 0
    while len(found) < end and answer.get("done") is not True:
        page, before_page = _next_name(answer), len(found)
        answer = await api.run(_page(api, page, headers))
        found += records_of(answer)
        if len(found) == before_page and answer.get("done") is not True:
            raise Unavailable("Salesforce returned an empty page that is not the last")
    rest = None
    if len(found) > end:
        rest = QueryPlace(page, end - before_page)
    elif answer.get("done") is not True:
        rest = QueryPlace(_next_name(answer), 0)
    total = answer.get("totalSize")
    records, is_cut = await _with_children(api, found[skip:end], headers)
    return Rows(
        records=[plain(record) for record in records],
        total=total if isinstance(total, int) else len(found),
        truncated=rest is not None or is_cut,
        rest=rest,
    )


async def _first_page(api: SalesforceApi, soql: str, headers: Mapping[str, str]) -> Any:
    def run(org: Org) -> Any:
        return org.api.query(soql, headers=headers)

    return await api.run(run)


async def _old_page(api: SalesforceApi, page: str, headers: Mapping[str, str]) -> Any:
    try:
        return await api.run(_page(api, page, headers))
    except (Unavailable, NotFound) as gone:
        if reason_of(gone) not in {"INVALID_QUERY_LOCATOR", "NOT_FOUND"}:
            raise
        raise InvalidParams.field("cursor", "has expired; run the query again without it") from None


def _page(api: SalesforceApi, page: str, headers: Mapping[str, str]) -> Callable[[Org], Any]:
    url = f"{api.root}query/{page}"
    return lambda org: org.api.query_more(url, identifier_is_url=True, headers=headers)


def _next_name(answer: Mapping[str, Any]) -> str:
    """Return the name of the next page."""
    url = answer.get("nextRecordsUrl")
    found = _NEXT.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise Unavailable("Salesforce did not return the address of the next page")
    return found[1]


async def _with_children(
    api: SalesforceApi, records: list[dict[str, Any]], headers: Mapping[str, str]
) -> tuple[list[dict[str, Any]], bool]:
    """Return the records with the rest of their sub-queries, and whether some of it had to be left out."""
    left, is_cut = MAX_CHILD_PAGES, False
    for record in records:
        for child in record.values():
            while isinstance(child, dict) and child.get("done") is False and "records" in child:
                if left == 0:
                    is_cut = True
                    break
                left -= 1
                more = await api.run(_page(api, _next_name(child), headers))
                child["records"] = [*records_of(child), *records_of(more)]
                child["done"], child["nextRecordsUrl"] = more.get("done"), more.get("nextRecordsUrl")
    return records, is_cut


def records_of(
    answer: Mapping[str, Any], key: str = "records", *, sent: Sent = Sent.ANSWERED
) -> list[dict[str, Any]]:
    """Return the records of an answer.

    Raises:
        Unavailable: the answer has no such list.
    """
    records = answer.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise Unavailable(f"Salesforce did not return {key}", sent=sent)
    return records


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without `attributes` and without the wrapping of related records."""
    return {name: _plain(value) for name, value in record.items() if name != "attributes"}


def _plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("records"), list) and "totalSize" in value:
        return [plain(each) for each in value["records"] if isinstance(each, dict)]
    return plain(value)


def type_of(record: Mapping[str, Any]) -> str | None:
    """Return the name of a record's object."""
    attributes = record.get("attributes")
    kind = attributes.get("type") if isinstance(attributes, dict) else None
    return kind if isinstance(kind, str) else None
