"""What a run's requests may have changed, judged against a provider that keeps a journal."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.errors import ConnectorError, Sent, Timeout, Unavailable
from connectors.sdk.http.client import HttpClient, HttpPolicy, HttpPool
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.testing import Answer, Asked, FakeProvider

pytestmark = pytest.mark.integration

#: What may become of one request, and whether the provider has done the work by then.
ENDS = {
    **{
        f"{status} done": (Answer({}, status=status), True)
        for status in (200, 201, 204, 303, 500, 502, 503, 504)
    },
    **{f"{status} refused": (Answer({}, status=status), False) for status in (400, 403, 404, 409, 422, 429)},
    "302 done": (Answer({}, status=302, headers={"Location": "/200%20done"}), True),
    "307 on": (Answer({}, status=307, headers={"Location": "/200%20done"}), False),
    "308 on": (Answer({}, status=308, headers={"Location": "/422%20refused"}), False),
    "307 cut": (Answer({}, status=307, headers={"Location": "/cut%20done"}), False),
    "408 done": (Answer({}, status=408), True),
    "503 refused": (Answer({}, status=503), False),
    "cut done": (Answer(instead="cut"), True),
    "cut refused": (Answer(instead="cut"), False),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
Step = tuple[str, str]
STEPS = st.lists(st.tuples(st.sampled_from(METHODS), st.sampled_from(sorted(ENDS))), max_size=5)


class Journal(FakeProvider):
    """A provider that does the work of a write, or does not, and answers as the path says."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Asked] = []
        for method in METHODS:
            self.on(method, "/{end}", self.end)

    def end(self, asked: Asked) -> Answer:
        answer, does_work = ENDS[asked.names["end"].replace("%20", " ")]
        if does_work and asked.is_work:
            self.done.append(asked)
        return answer


def client_of(pool: HttpPool, effects: JobEffects, **options: float) -> HttpClient:
    return pool.client(tenant="acme", connector="http", credential="default", effects=effects, **options)


def leaves_open(asked: Asked) -> bool:
    """Return whether what the provider answered proves nothing."""
    status, _, end = asked.path[1:].partition("%20")
    is_refused = status[0] == "4" and end == "refused"
    return asked.is_work and not is_refused and status not in {"307", "308"}


async def run(api: HttpClient, step: Step) -> Sent | None:
    method, end = step
    try:
        await api.request(method, "/" + end.replace(" ", "%20"))
    except ConnectorError as error:
        return error.sent
    return None


@given(steps=STEPS, at_once=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_effect_is_told_only_if_there_can_be_none(steps: list[Step], at_once: bool) -> None:
    async def main() -> None:
        effects, pool = JobEffects(), HttpPool(HttpPolicy())
        async with Journal() as provider:
            api = client_of(pool, effects).at(provider.url)
            if at_once:
                sent = list(await asyncio.gather(*(run(api, step) for step in steps)))
            else:
                sent = [await run(api, step) for step in steps]
            await pool.close()
        assert effects.may_have_effect or not provider.done
        assert effects.has_sent is any(asked.is_work for asked in provider.journal)
        assert effects.may_have_effect is any(leaves_open(asked) for asked in provider.journal)
        if not effects.may_have_effect and not at_once:  # a read may end while a write is still open
            assert Sent.UNCERTAIN not in sent

    asyncio.run(main())


async def test_a_refused_connection_changes_nothing(pool: HttpPool, unused_port: int) -> None:
    effects = JobEffects()

    with pytest.raises(ConnectorError) as failure:
        await client_of(pool, effects).at(f"http://127.0.0.1:{unused_port}").post("/", json={})

    assert (False, False) == (effects.has_sent, effects.may_have_effect)
    assert Sent.NO is failure.value.sent


async def test_a_declared_status_proves_that_nothing_was_processed(pool: HttpPool) -> None:
    effects = JobEffects()
    async with Journal() as provider:
        api = client_of(pool, effects).at(provider.url)
        with pytest.raises(ConnectorError) as failure:
            await api.post("/503%20refused", unprocessed_statuses={503})

    assert (True, False) == (effects.has_sent, effects.may_have_effect)
    assert Sent.ANSWERED is failure.value.sent


async def test_a_timeout_leaves_the_write_open(pool: HttpPool) -> None:
    effects = JobEffects()
    async with FakeProvider() as provider:
        provider.on("POST", "/", Answer(instead="hang"))
        with pytest.raises(ConnectorError):
            await client_of(pool, effects).at(provider.url).post("/", json={}, timeout_s=0.1)

    assert effects.may_have_effect


async def test_a_cancelled_write_is_left_open(pool: HttpPool) -> None:
    effects, asked = JobEffects(), asyncio.Event()

    def hang(_asked: Asked) -> Answer:
        asked.set()
        return Answer(instead="hang")

    async with FakeProvider() as provider:
        provider.on("POST", "/", hang)
        running = asyncio.create_task(client_of(pool, effects).at(provider.url).post("/", json={}))
        await asked.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert effects.may_have_effect


async def test_a_later_refusal_does_not_clear_an_earlier_write(pool: HttpPool) -> None:
    effects = JobEffects()
    async with Journal() as provider:
        api = client_of(pool, effects).at(provider.url)
        await run(api, ("POST", "201 done"))
        later = [await run(api, ("POST", "400 refused")), await run(api, ("GET", "503 refused"))]

    assert effects.may_have_effect
    assert [Sent.ANSWERED, Sent.UNCERTAIN] == later


async def test_a_search_by_post_has_no_effect(pool: HttpPool) -> None:
    effects = JobEffects()
    async with Journal() as provider:
        api = client_of(pool, effects).at(provider.url)
        with pytest.raises(ConnectorError) as failure:
            await api.post("/500%20done", json={}, changes_nothing=True)

    assert (False, False) == (effects.has_sent, effects.may_have_effect)
    assert Sent.NO is failure.value.sent


@pytest.mark.parametrize(("method", "sent"), [("get", Sent.NO), ("post", Sent.UNCERTAIN)])
async def test_an_answer_that_is_no_json_leaves_only_a_write_open(
    pool: HttpPool, method: str, sent: Sent
) -> None:
    async with FakeProvider() as provider:
        provider.on(method.upper(), "/", Answer(body=b"<html>"))
        response = await getattr(client_of(pool, JobEffects()).at(provider.url), method)("/")

    with pytest.raises(Unavailable) as failure:
        response.json()
    assert sent is failure.value.sent


async def test_a_write_whose_time_is_over_does_not_leave() -> None:
    """Its worker stood still while it connected; meanwhile another may have looked, and found nothing."""
    effects, pool = JobEffects(), HttpPool(HttpPolicy())
    effects.may_leave = lambda: False
    async with Journal() as provider:
        api = client_of(pool, effects).at(provider.url)
        with pytest.raises(Timeout) as late:
            await api.post("/200 done".replace(" ", "%20"))
        read = await api.get("/200 done".replace(" ", "%20"))
        await pool.close()

    assert Sent.NO is late.value.sent
    assert not effects.has_sent
    assert [] == provider.done
    assert 200 == read.status_code
