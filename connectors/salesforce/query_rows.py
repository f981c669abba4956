"""Query results, read page by page, as plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.salesforce.client import Org, SalesforceApi
from connectors.sdk.errors import Sent, Unavailable

#: The smallest and the largest page that Salesforce gives.
MIN_PAGE: Final = 200
MAX_PAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query."""

    records: list[dict[str, Any]]
    #: How many records match.
    total: int
    #: Whether there are more than `records`.
    truncated: bool


async def query_rows(api: SalesforceApi, soql: str, *, limit: int) -> Rows:
    """Run a query, and follow its pages until there are enough records."""
    page_size = min(max(limit, MIN_PAGE), MAX_PAGE)
    headers = {"Sforce-Query-Options": f"batchSize={page_size}"}

    def first(org: Org) -> Any:
        return org.api.query(soql, headers=headers)

    answer = await api.run(first)
    found = records_of(answer)
    total = answer.get("totalSize")
    while answer.get("done") is not True and len(found) < limit:
        more = answer.get("nextRecordsUrl")
        if not isinstance(more, str) or not more.startswith("/services/data/"):
            raise Unavailable("Salesforce did not return the address of the next page")
        answer = await api.run(_next_page(more, headers))
        page = records_of(answer)
        if not page and answer.get("done") is not True:
            raise Unavailable("Salesforce returned an empty page that is not the last")
        found += page
    return Rows(
        records=[plain(record) for record in found[:limit]],
        total=total if isinstance(total, int) else len(found),
        truncated=len(found) > limit or answer.get("done") is not True or any(map(_is_cut, found[:limit])),
    )


def _next_page(url: str, headers: Mapping[str, str]) -> Any:
    return lambda org: org.api.query_more(url, identifier_is_url=True, headers=headers)


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


def _is_cut(record: Mapping[str, Any]) -> bool:
    """Return whether a sub-query has more than its first page."""
    return any(isinstance(value, dict) and value.get("done") is False for value in record.values())
