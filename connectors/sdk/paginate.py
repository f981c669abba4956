"""Lists in pages, as one stream of items: by cursor, by offset, by link header.

    async def page(cursor: str | None) -> Page[dict[str, Any]]:
        answer = (await api.get("/contacts", params={"after": cursor or ""})).json()
        return Page(answer["items"], answer["next"])

    contacts = await take(by_cursor(page), limit=100)   # contacts.items, contacts.truncated

No more is asked for than is taken. A provider that never ends is stopped: after MAX_PAGES, or if it
gives a page that it gave before.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import urljoin, urlsplit

from connectors.sdk.errors import Rejected, Sent, Unavailable

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http.client import HttpClient

__all__ = ["MAX_PAGES", "Page", "Taken", "by_cursor", "by_link", "by_offset", "take"]

#: Pages of one list at most: beyond it is a mistake of the provider, or a list that no one reads.
MAX_PAGES: Final = 1000

T = TypeVar("T")

_LINK: Final = re.compile(r"<([^<>]{1,4096})>([^<]*)")
_NEXT: Final = re.compile(
    r""";\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|'next'|next(?=\s*(?:[;,]|$)))""", re.I
)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, and the cursor of the next one."""

    items: Sequence[T]
    #: None, or empty: this is the last.
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """The items taken from a list, and whether there were more."""

    items: list[T]
    #: Whether there was more.
    truncated: bool


async def take(items: AsyncIterator[T], *, limit: int) -> Taken[T]:
    """Return at most `limit` items, and whether there were more."""
    taken: list[T] = []
    async with aclosing(items) as stream:  # type: ignore[type-var]  # ours are generators
        async for item in stream:
            if len(taken) >= limit:
                return Taken(taken, truncated=True)
            taken.append(item)
    return Taken(taken, truncated=False)


async def by_cursor(fetch: Callable[[str | None], Awaitable[Page[T]]]) -> AsyncIterator[T]:
    """Yield the items page by page, by the cursor that each page gives; the first is requested with None.

    Raises:
        Unavailable: a cursor comes twice, or there are more than MAX_PAGES.
    """
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await fetch(cursor)
        for item in page.items:
            yield item
        if not page.next:
            return
        if page.next in seen:
            raise Unavailable("the provider gives the same page twice", sent=Sent.NO)
        cursor = page.next
        seen.add(cursor)
    raise _endless()


async def by_offset(
    fetch: Callable[[int], Awaitable[Sequence[T]]], *, page_size: int | None = None
) -> AsyncIterator[T]:
    """Yield the items page by page, by offset, until a page is empty, or shorter than `page_size`.

    Args:
        page_size: the size that the provider guarantees; None if its pages may be shorter.

    Raises:
        Unavailable: there are more than MAX_PAGES.
    """
    offset = 0
    for _ in range(MAX_PAGES):
        items = await fetch(offset)
        for item in items:
            yield item
        offset += len(items)
        if not items or (page_size is not None and len(items) < page_size):
            return
    raise _endless()


async def by_link(
    api: "HttpClient", path: str, *, items: Callable[["httpx.Response"], Sequence[T]], **options: Any
) -> AsyncIterator[T]:
    """Yield the items page by page, by the header `Link: <…>; rel="next"` (RFC 8288), within the API's own origin.

    Args:
        items: reads a page.
        options: of `HttpClient.get`, for the first page; the link holds its own query.

    Raises:
        Rejected: the link leads to another host.
        Unavailable: a link comes twice, or there are more than MAX_PAGES.
    """
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        response = await api.get(path, **options)
        for item in items(response):
            yield item
        here = str(response.url)
        seen.add(here)
        link = next_link(response.headers.get("link", ""))
        if link is None:
            return
        path = urljoin(here, link)
        if urlsplit(path)[:2] != urlsplit(here)[:2]:
            raise Rejected(f"{response.url.host} links the next page to another host, which is not followed")
        if path in seen:
            raise Unavailable("the provider gives the same page twice", sent=Sent.NO)
        options = {name: value for name, value in options.items() if name != "params"}
    raise _endless()


def next_link(header: str) -> str | None:
    """Return the next page's URL in a Link header; None if there is none."""
    return next((url for url, rest in _LINK.findall(header[:16_384]) if _NEXT.search(rest)), None)


def _endless() -> Unavailable:
    return Unavailable(f"the provider's list has more than {MAX_PAGES} pages", sent=Sent.NO)
