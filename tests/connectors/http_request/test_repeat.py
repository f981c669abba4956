"""A repeat of an uncertain attempt is not judged as if it were the first; a 5xx proves nothing."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.http_request import http
from connectors.sdk.errors import Code
from connectors.sdk.testing import Answer, Asked, FakeProvider, Kit, Ran

pytestmark = pytest.mark.integration

CUT = Answer(instead="cut")


class Api(FakeProvider):
    """An API that answers the attempts at one thing in turn, and counts what has happened."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.effects = 0
        self._answers = list(answers)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            self.on(method, "/thing", self.next)

    def next(self, _asked: Asked) -> Answer:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.effects += answer.status < 300 or answer.status >= 500 or answer.instead is not None
        return answer


async def run(api: Api, method: str, *, credential: dict[str, Any] | None = None, **options: Any) -> Ran:
    document = {"base_url": api.url, **(credential or {})}
    params = {"method": method, "path": "/thing", **options.pop("params", {})}
    async with Kit(http, credential=document, max_attempts=options.pop("max_attempts", 5)) as kit:
        return await kit.run("request", params, **options)


def error_of(ran: Ran) -> tuple[Code, Any]:
    assert ran.result.error is not None
    return ran.result.error.code, (ran.result.error.data or {}).get("status")


@pytest.mark.parametrize("status", [404, 410])
async def test_a_repeated_delete_finds_nothing_and_succeeds(status: int) -> None:
    async with Api(CUT, Answer({}, status=status)) as api:
        ran = await run(api, "DELETE")

    assert ("succeeded", status, 2) == (ran.result.status, ran.data["status"], ran.result.attempts)


@pytest.mark.parametrize(("status", "code"), [(404, Code.NOT_FOUND), (410, Code.REJECTED)])
async def test_a_first_delete_that_finds_nothing_says_so(status: int, code: Code) -> None:
    async with Api(Answer({}, status=status)) as api:
        ran = await run(api, "DELETE")

    assert (code, status) == error_of(ran)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_key_that_is_still_at_work_is_waited_for(method: str) -> None:
    document = {"idempotency_header": "Idempotency-Key"}
    async with Api(CUT, Answer({}, status=409), Answer({"paid": True})) as api:
        ran = await run(api, method, credential=document)

    assert ({"paid": True}, 3) == (ran.data["body"], ran.result.attempts)


async def test_a_first_conflict_under_a_key_is_a_conflict() -> None:
    async with Api(Answer({}, status=409)) as api:
        ran = await run(api, "POST", credential={"idempotency_header": "Idempotency-Key"})

    assert (Code.CONFLICT, 409) == error_of(ran)


async def test_a_condition_that_fails_on_a_repeat_leaves_the_outcome_unknown() -> None:
    async with Api(CUT, Answer({}, status=412)) as api:
        ran = await run(api, "PUT", params={"headers": {"If-Match": '"1"'}})

    assert (Code.OUTCOME_UNKNOWN, 412) == error_of(ran)


async def test_a_condition_that_fails_at_first_is_a_refusal() -> None:
    async with Api(Answer({}, status=412)) as api:
        ran = await run(api, "PUT", params={"headers": {"If-Match": '"1"'}})

    assert (Code.REJECTED, 412) == error_of(ran)


@pytest.mark.parametrize("answer", [Answer(status=500), Answer(status=502), Answer(status=503), CUT])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_plain_write_that_may_have_happened_is_not_called_again(method: str, answer: Answer) -> None:
    async with Api(answer) as api:
        ran = await run(api, method)

    assert Code.OUTCOME_UNKNOWN is error_of(ran)[0]
    assert 1 == api.effects


async def test_an_open_write_is_not_told_as_not_started_at_the_deadline() -> None:
    async with Api(Answer(status=500)) as api:
        document = {"base_url": api.url}
        async with Kit(http, credential=document) as kit:
            deadline = kit.clock.now() + timedelta(seconds=8)
            ran = await kit.run("request", {"method": "POST", "path": "/thing"}, deadline=deadline)

    assert ran.result.error is not None
    assert Code.OUTCOME_UNKNOWN is ran.result.error.code
    assert 1 == api.effects


@pytest.mark.parametrize("statuses", [[503], "503, 504"])
async def test_a_status_that_the_api_vows_for_is_retried(statuses: Any) -> None:
    async with Api(Answer(status=503), Answer({"id": 1})) as api:
        ran = await run(api, "POST", credential={"unprocessed_statuses": statuses})

    assert ({"id": 1}, 2) == (ran.data["body"], ran.result.attempts)


@pytest.mark.parametrize("status", [200, 404, 600, "all"])
def test_only_open_statuses_can_be_declared(status: object) -> None:
    with pytest.raises(Exception, match="unprocessed_statuses"):
        http.read_credential({"base_url": "https://a.example", "unprocessed_statuses": [status]})


@pytest.mark.parametrize("status", [307, 308])
async def test_a_write_follows_its_redirect_and_is_done_once(status: int) -> None:
    async with Api(Answer({"id": 1})) as api:
        api.on("POST", "/old", Answer(status=status, headers={"Location": "/thing"}))
        async with Kit(http, credential={"base_url": api.url}) as kit:
            params = {"method": "POST", "path": "/old", "json": {"n": 1}}
            first = await kit.run("request", params, key="k")
            again = await kit.run("request", params, key="k")

    assert (200, True, 1) == (first.data["status"], again.replayed, api.effects)
    assert [b'{"n":1}'] * 2 == [asked.body for asked in api.journal]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("allowed_hosts", [[], ["127.0.0.1"]])
async def test_another_redirect_of_a_write_is_rejected_with_its_path(
    method: str, status: int, allowed_hosts: list[str]
) -> None:
    async with Api(Answer(status=status, headers={"Location": "/there/?secret=1"})) as api:
        ran = await run(api, method, credential={"allowed_hosts": allowed_hosts})

    assert ran.result.error is not None
    assert Code.REJECTED is ran.result.error.code
    # Whether it was done before it was redirected is not known: many forms answer so when they are saved.
    assert {"status": status, "location": "/there/", "outcome": "unknown"} == ran.result.error.data
    assert 1 == len(api.journal)


async def test_a_write_in_a_redirect_loop_is_rejected() -> None:
    async with Api(Answer(status=307, headers={"Location": "/thing"})) as api:
        ran = await run(api, "POST")

    assert (Code.REJECTED, 307) == error_of(ran)
    assert 6 == len(api.journal)


REFUSALS = [Answer({}, status=status) for status in (400, 403, 404, 409, 410, 412, 422, 429)]
OPEN = [CUT, *(Answer({}, status=status) for status in (408, 500, 502, 503, 504))]
DONE = [Answer({}, status=status) for status in (200, 201, 204)]


@given(
    answers=st.lists(st.sampled_from(REFUSALS + OPEN + DONE), min_size=1, max_size=5),
    method=st.sampled_from(["POST", "PATCH"]),
    seconds=st.none() | st.integers(1, 60),
)
@settings(max_examples=40, deadline=None)
def test_a_plain_write_has_one_effect_at_most_whatever_is_answered(
    answers: list[Answer], method: str, seconds: int | None
) -> None:
    async def main() -> None:
        async with Api(*answers) as api, Kit(http, credential={"base_url": api.url}) as kit:
            deadline = None if seconds is None else kit.clock.now() + timedelta(seconds=seconds)
            ran = await kit.run("request", {"method": method, "path": "/thing"}, deadline=deadline)
        assert api.effects <= 1
        data = (ran.result.error and ran.result.error.data) or {}
        assert not (api.effects and data.get("outcome") == "not_started")
        assert not (ran.result.error is None and not api.effects)

    _run(main)


def _run(main: Callable[[], Any]) -> None:
    import asyncio

    asyncio.run(main())


class KeyedApi(FakeProvider):
    """A thing that is there until it is deleted, and orders that are made once per key; by a plan of faults."""

    def __init__(self, plan: list[str]) -> None:
        super().__init__()
        self.is_there = True
        self.orders: set[str] = set()
        self._plan = list(plan)
        self.on("DELETE", "/thing", lambda asked: self.faulty(self.delete, asked))
        self.on("POST", "/orders", lambda asked: self.faulty(self.order, asked))

    def faulty(self, work: Callable[[Asked], Answer], asked: Asked) -> Answer:
        fault = self._plan.pop(0) if self._plan else "none"
        if fault == "409 before" and not self.is_there:
            fault = "none"  # what is gone is in no one's way
        answer = Answer({}) if "before" in fault else work(asked)
        if "cut" in fault:
            return Answer(instead="cut")
        return answer if fault == "none" else Answer({}, status=int(fault[:3]))

    def delete(self, _asked: Asked) -> Answer:
        was_there, self.is_there = self.is_there, False
        return Answer({}, status=200 if was_there else 404)

    def order(self, asked: Asked) -> Answer:
        self.orders.add(asked.headers["idempotency-key"])
        return Answer({}, status=201)


FAULTS = [
    "none",
    "cut before",
    "cut after",
    "500 before",
    "503 after",
    "429 before",
    "409 before",
    "504 after",
]


@given(plan=st.lists(st.sampled_from(FAULTS), max_size=6), method=st.sampled_from(["DELETE", "POST"]))
@settings(max_examples=40, deadline=None)
def test_no_keyed_request_is_told_refused_that_has_happened(plan: list[str], method: str) -> None:
    async def main() -> None:
        async with KeyedApi(plan) as api:
            document = {"base_url": api.url, "idempotency_header": "Idempotency-Key"}
            path = "/thing" if method == "DELETE" else "/orders"
            async with Kit(http, credential=document) as kit:
                ran = await kit.run("request", {"method": method, "path": path})
        has_happened = not api.is_there or bool(api.orders)
        error = ran.result.error
        assert len(api.orders) <= 1
        if error is None:
            assert has_happened
        elif has_happened:
            assert error.code is Code.OUTCOME_UNKNOWN or "unknown" == (error.data or {}).get("outcome")

    _run(main)


async def test_an_unknown_outcome_quotes_what_was_answered() -> None:
    async with FakeProvider() as provider, Kit(http, credential={"base_url": provider.url}) as kit:
        provider.on("POST", "/orders", Answer({"error": "half done"}, status=500))

        ran = await kit.run("request", {"method": "POST", "path": "/orders", "json": {}})

    assert ran.result.error is not None
    assert Code.OUTCOME_UNKNOWN is ran.code
    assert {"status": 500, "body": {"error": "half done"}} == ran.result.error.data


async def test_a_read_leaves_no_outcome_open() -> None:
    large = Answer(body=b"y" * (2**20 + 1), headers={"Content-Type": "text/plain"})
    async with FakeProvider() as provider, Kit(http, credential={"base_url": provider.url}) as kit:
        provider.on("GET", "/orders", large)

        ran = await kit.run("request", {"method": "GET", "path": "/orders"})

    assert ran.result.error is not None
    assert (Code.RESULT_TOO_LARGE, None) == (ran.code, ran.result.error.data)
