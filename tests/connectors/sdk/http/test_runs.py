"""A run of several requests, on the worker's own core: whatever is answered, nothing happens twice."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk import Connector, Context, Effect
from connectors.sdk.auth import ApiCredential
from connectors.sdk.errors import Code
from connectors.sdk.testing import Answer, Asked, FakeProvider, Kit
from schemas.result import Result
from tests.connectors.sdk.http.test_job_effects import ENDS

pytestmark = pytest.mark.integration

shop = Connector("shop", credential=ApiCredential)


@shop.action(effect=Effect.WRITE)
async def order(methods: list[str], at_once: bool, ctx: Context[ApiCredential]) -> None:
    """Make several requests, in turn or at once."""
    api = ctx.credential.api(ctx)

    async def call(number: int, method: str) -> None:
        await api.request(method, f"/{number}")

    if at_once:
        await asyncio.gather(*(call(number, method) for number, method in enumerate(methods)))
        return
    for number, method in enumerate(methods):
        await call(number, method)


class Journal(FakeProvider):
    """A provider that answers each request by the next of a list, then with 200, and counts what it did."""

    def __init__(self, ends: list[str]) -> None:
        super().__init__()
        self.done: Counter[str] = Counter()
        self._ends = list(ends)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            self.on(method, "/{end}", self.end)

    def end(self, asked: Asked) -> Answer:
        answer, does_work = ENDS[self._ends.pop(0)] if self._ends else (Answer({}), True)
        if does_work and asked.is_work:
            self.done[asked.path] += 1
        return answer


@given(
    ends=st.lists(
        st.sampled_from(sorted(name for name in ENDS if name[:3] not in {"307", "308"})), max_size=6
    ),
    methods=st.lists(st.sampled_from(["GET", "POST", "PATCH"]), min_size=1, max_size=3),
    at_once=st.booleans(),
    seconds=st.none() | st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_no_request_of_a_write_has_its_effect_twice(
    ends: list[str], methods: list[str], at_once: bool, seconds: int | None
) -> None:
    async def main() -> tuple[Counter[str], Counter[str], Result]:
        async with Journal(ends) as provider, Kit(shop, credential={"base_url": provider.url}) as kit:
            deadline = None if seconds is None else kit.clock.now() + timedelta(seconds=seconds)
            params = {"methods": methods, "at_once": at_once}
            first = await kit.run(order, params, key="k", deadline=deadline)
            done = provider.done.copy()
            await kit.run(order, params, key="k")
            return done, provider.done, first.result

    done, done_in_all, result = asyncio.run(main())
    assert [] == [path for path, times in done_in_all.items() if times > 1]
    if result.error is not None:
        is_open = (
            result.error.code is Code.OUTCOME_UNKNOWN or (result.error.data or {}).get("outcome") == "unknown"
        )
        assert is_open or not done
