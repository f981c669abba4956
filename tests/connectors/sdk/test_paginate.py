"""Answers that come in pages: all of them, no more than asked for, and never without end."""

from collections.abc import Sequence

import pytest

from connectors.sdk import Rejected, Unavailable
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.paginate import MAX_PAGES, Page, by_cursor, by_link, by_offset, next_link, take
from connectors.sdk.testing import Answer, Asked, FakeProvider


class Source:
    """A list of numbers in pages of three."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pages = 0

    async def page(self, cursor: str | None) -> Page[int]:
        start = int(cursor or 0)
        items = await self.slice(start)
        end = start + len(items)
        return Page(items, str(end) if end < self.count else None)

    async def slice(self, offset: int) -> Sequence[int]:
        self.pages += 1
        return range(offset, min(offset + 3, self.count))


@pytest.mark.parametrize(
    ("count", "limit", "truncated", "pages"),
    [(7, 100, False, 3), (7, 7, False, 3), (7, 4, True, 2), (0, 5, False, 1), (7, 0, True, 1)],
)
async def test_no_more_pages_are_asked_for_than_are_taken(
    count: int, limit: int, truncated: bool, pages: int
) -> None:
    source = Source(count)

    taken = await take(by_cursor(source.page), limit=limit)

    assert (list(range(min(count, limit))), truncated) == (taken.items, taken.truncated)
    assert pages == source.pages


@pytest.mark.parametrize("page_size", [None, 3])
async def test_offsets_count_what_came(page_size: int | None) -> None:
    source = Source(6)

    taken = await take(by_offset(source.slice, page_size=page_size), limit=100)

    assert list(range(6)) == taken.items
    assert 3 == source.pages


async def test_a_page_shorter_than_promised_is_the_last() -> None:
    source = Source(7)

    await take(by_offset(source.slice, page_size=3), limit=100)

    assert 3 == source.pages


async def test_a_cursor_that_comes_twice_ends_it() -> None:
    async def again(cursor: str | None) -> Page[int]:
        return Page([1], "same")

    with pytest.raises(Unavailable, match="same page twice"):
        await take(by_cursor(again), limit=100)


async def test_a_list_without_end_is_ended() -> None:
    async def ever(offset: int) -> Sequence[int]:
        return [offset]

    with pytest.raises(Unavailable, match=f"more than {MAX_PAGES} pages"):
        await take(by_offset(ever), limit=10**9)


@pytest.mark.parametrize(
    ("header", "url"),
    [
        ('<https://a.example/?p=2>; rel="next"', "https://a.example/?p=2"),
        (
            '<https://a.example/?p=1>; rel="prev", <https://a.example/?p=3,4>; title="n"; rel=next',
            "https://a.example/?p=3,4",
        ),
        ('</x>; rel="last next"', "/x"),
        ('<https://a.example/?p=1>; rel="prev"', None),
        ('<https://a.example/?p=1>; rel="nextish"', None),
        ("", None),
        ("<" * 5000, None),
    ],
)
def test_a_link_header_is_read(header: str, url: str | None) -> None:
    assert url == next_link(header)


@pytest.mark.integration
async def test_links_are_followed_within_the_api_alone() -> None:
    async with FakeProvider() as provider:

        def page(asked: Asked) -> Answer:
            number = int(asked.query.get("p", "1"))
            links = {1: "/items?p=2", 2: f"{provider.url}/items?p=3", 9: "https://elsewhere.example/items"}
            headers = {"Link": f'<{links[number]}>; rel="next"'} if number in links else {}
            return Answer([number], headers=headers)

        provider.on("GET", "/items", page)
        pool = HttpPool(HttpPolicy())
        api = pool.client(tenant="t", connector="c", credential="d").at(provider.url)

        taken = await take(by_link(api, "/items", items=lambda response: response.json()), limit=100)
        with pytest.raises(Rejected, match="another host"):
            await take(
                by_link(api, "/items", items=lambda response: response.json(), params={"p": 9}), limit=100
            )
        await pool.close()

    assert [1, 2, 3] == taken.items
