"""The outcome of a call is a fact whose default is "may have happened"; only a proof moves it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from connectors.sdk import Connector, Context, Effect, PermissionDenied, Timeout, Unavailable
from connectors.sdk.errors import Code, Sent
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Claimed, Identity, LedgerUnavailable, Unknown, fingerprint_of
from connectors.sdk.runtime.outcome import Attempt, Snooze
from connectors.sdk.testing import Answer, FakeProvider, Kit
from schemas.job import Job
from tests.support.runtime_bench import KEY, Bench, SlowLedger, open_bench, said


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as bench:
        yield bench


def _fail(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("action", ["keyed", "write", "found"])
async def test_a_deadline_in_the_middle_of_the_commit_is_unknown(bench: Bench, action: str) -> None:
    slow = bench.ledger = SlowLedger(bench.clock)

    running = asyncio.create_task(bench.run(action, in_s=2))
    await slow.committing.wait()
    bench.clock.skip(2)
    outcome = await running
    slow.go_on.set()
    assert outcome.ack_after is not None
    await outcome.ack_after

    assert (Code.DEADLINE_EXCEEDED, "unknown") == said(outcome)
    assert ("order 1", True) == ((again := await bench.run(action)).data, again.replayed)


async def test_a_later_refused_connection_does_not_forget_an_uncertain_attempt(bench: Bench) -> None:
    bench.shop.then = _fail(Timeout("the answer was lost"))
    first = await bench.run("keyed")
    bench.shop.before = _fail(Unavailable("connection refused", sent=Sent.NO))
    second = await bench.run("keyed")

    late = await bench.run("keyed", in_s=-1)

    assert [True, True] == [first.is_uncertain, second.is_uncertain]
    assert (Code.DEADLINE_EXCEEDED, "unknown") == said(late)


@pytest.mark.parametrize(
    ("error", "settled"),
    [
        (PermissionDenied("no right any more"), False),
        (Unavailable("failing"), False),
        (Timeout("no thread was free", sent=Sent.NO), False),
    ],
)
async def test_only_an_answer_for_the_key_settles_an_earlier_attempt(
    bench: Bench, error: Exception, settled: bool
) -> None:
    bench.shop.then = _fail(Timeout("the answer was lost"))
    await bench.run("keyed")
    bench.shop.before = _fail(error)

    assert settled is not (await bench.run("keyed")).is_uncertain


@pytest.mark.parametrize("action", ["write", "found", "keyed"])
async def test_a_worker_that_ends_during_the_commit_leaves_no_second_effect(
    bench: Bench, action: str
) -> None:
    """As a second signal does, or a drain that runs out, while a backup holds the database."""
    slow = bench.ledger = SlowLedger(bench.clock)
    ending = bench.worker()
    running = asyncio.create_task(bench.run(action, ending))
    await slow.committing.wait()
    await ending.close()
    running.cancel()
    slow.go_on.set()

    bench.clock.skip(60)  # the call of the worker that ended can no longer land
    outcome = await bench.run(action, bench.worker())

    expected = {"write": Code.OUTCOME_UNKNOWN}.get(action)
    assert expected == (None if outcome.error is None else outcome.error.code)
    assert 1 == len(bench.shop.orders) or action == "keyed"


async def test_an_author_who_raises_after_the_write_is_not_run_again(bench: Bench) -> None:
    bench.shop.then = _fail(Unavailable("the second system is down"))

    first = await bench.run("write")
    second = await bench.run("write")

    assert [Code.OUTCOME_UNKNOWN] * 2 == [said(first)[0], said(second)[0]]
    assert [KEY] == bench.shop.orders


async def test_a_write_that_blocks_past_its_time_has_one_effect(bench: Bench) -> None:
    """It is looked up while it still blocks, found absent, and then its thread writes."""
    gate = threading.Event()
    bench.shop.before = gate.wait

    first = await bench.run("blocking")
    with pytest.raises(Snooze):
        await bench.run("blocking", bench.worker())
    gate.set()
    outcome = first
    while outcome.error is not None:
        try:
            outcome = await bench.run("blocking")
        except Snooze:
            await asyncio.sleep(0)

    assert Code.TIMEOUT is said(first)[0]
    assert ("blocked", [KEY]) == (outcome.data, bench.shop.orders)


async def test_a_blocking_write_of_a_dead_worker_is_unknown_without_a_bound(bench: Bench) -> None:
    identity = Identity("default", "shop", "blocking", KEY)
    claimed = await bench.ledger.claim(identity, fingerprint_of({}, "default"))
    assert isinstance(claimed, Claimed)
    action = bench.shop.connector.actions["blocking"]
    lands_within_s = action.lands_within_s(Effect.WRITE)
    await bench.ledger.begin(identity, claimed.fence, lands_within_s=lands_within_s)
    bench.clock.skip(3600)

    outcome = await bench.run("blocking")

    assert Code.OUTCOME_UNKNOWN is said(outcome)[0]
    assert isinstance(await bench.ledger.look_up(identity, fingerprint_of({}, "default")), Unknown)


async def test_a_copy_comes_back_when_the_lease_of_a_dead_worker_ends(bench: Bench) -> None:
    identity = Identity("default", "shop", "keyed", KEY)
    await bench.ledger.claim(identity, fingerprint_of({}, "default"))
    bench.clock.skip(10)

    with pytest.raises(Snooze) as snooze:
        await bench.run("keyed")

    assert snooze.value.at_most_s is not None
    assert 0 < snooze.value.at_most_s <= LeasePolicy().lease_s - 10


async def test_a_database_clock_set_back_keeps_no_one_waiting_longer_than_a_call(bench: Bench) -> None:
    identity = Identity("default", "shop", "found", KEY)
    claimed = await bench.ledger.claim(identity, fingerprint_of({}, "default"))
    assert isinstance(claimed, Claimed)
    await bench.ledger.begin(identity, claimed.fence, lands_within_s=600)
    await bench.ledger.release(identity, claimed.fence, in_flight=True)

    with pytest.raises(Snooze) as snooze:
        await bench.run("found")

    assert snooze.value.retry_in_s is not None
    assert snooze.value.retry_in_s <= 5 + LeasePolicy().stall_s


two_orders = Connector("two_orders")


@two_orders.action(effect=Effect.WRITE)
async def order_both(ctx: Context, url: str) -> str:
    """Order two things with two requests."""
    api = ctx.http.at(url)
    await api.post("/first", json={})
    await api.post("/second", json={})
    return "both"


@two_orders.action(effect=Effect.WRITE)
async def order_in_steps(ctx: Context, url: str) -> str:
    """Order two things, each in a step of its own."""
    api = ctx.http.at(url)
    async with ctx.step("first") as first:
        if not first.is_done:
            first.result = (await api.post("/first", json={})).json()["id"]
    await api.post("/second", json={})
    return f"{first.result} and the second"


@pytest.mark.integration
@pytest.mark.parametrize("status", [400, 408, 429, 500, 503])
async def test_a_write_of_two_requests_is_not_begun_anew(status: int) -> None:
    async with FakeProvider() as provider, Kit(two_orders) as kit:
        provider.on("POST", "/first", Answer({"id": 17}))
        provider.on("POST", "/second", Answer({"error": "no"}, status=status))

        ran = await kit.run("order_both", {"url": provider.url}, key=KEY)
        again = await kit.run("order_both", {"url": provider.url}, key=KEY)

    assert [Code.OUTCOME_UNKNOWN] * 2 == [ran.code, again.code]
    assert ["POST /first", "POST /second"] == provider.paths


@pytest.mark.integration
@pytest.mark.parametrize("status", [429, 503])
async def test_a_step_that_is_done_is_skipped_by_the_next_run(status: int) -> None:
    async with FakeProvider() as provider, Kit(two_orders) as kit:
        provider.on("POST", "/first", Answer({"id": 17}))
        answers = [Answer({}, status=status), Answer({"id": 18})]
        provider.on("POST", "/second", lambda _: answers.pop(0))

        ran = await kit.run("order_in_steps", {"url": provider.url}, key=KEY)

    if status == 429:  # certainly not processed
        assert ("17 and the second", 2) == (ran.data, ran.attempts)
        assert ["POST /first", "POST /second", "POST /second"] == provider.paths
    else:
        assert Code.OUTCOME_UNKNOWN is ran.code
        assert ["POST /first", "POST /second"] == provider.paths


@pytest.mark.integration
async def test_a_later_step_refused_at_the_deadline_does_not_hide_the_first() -> None:
    """Told `not_started`, its caller would order once more under a new key."""
    async with FakeProvider() as provider, Kit(two_orders) as kit:
        provider.on("POST", "/first", Answer({"id": 17}))
        provider.on("POST", "/second", Answer({}, status=429, headers={"Retry-After": "3600"}))
        deadline = kit.clock.now() + timedelta(seconds=60)

        ran = await kit.run("order_in_steps", {"url": provider.url}, key=KEY, deadline=deadline)

    assert Code.DEADLINE_EXCEEDED is ran.code
    assert ran.result.error is not None
    assert "unknown" == (ran.result.error.data or {})["outcome"]


booking = Connector("booking")


@booking.action(effect=Effect.KEYED)
async def book_room(ctx: Context, url: str) -> str:
    """Look at a room, then book it."""
    api = ctx.http.at(url)
    await api.get("/room")
    await api.post("/bookings", json={})
    return "booked"


@pytest.mark.integration
async def test_a_look_up_that_finds_nothing_settles_no_earlier_write() -> None:
    """Told `not_started`, its caller would book once more under a new key."""
    async with FakeProvider() as provider, Kit(booking) as kit:
        rooms = [Answer({"id": 1}), Answer({}, status=404)]
        provider.on("GET", "/room", lambda _: rooms.pop(0))
        provider.on("POST", "/bookings", Answer({}, status=503))

        ran = await kit.run("book_room", {"url": provider.url}, key=KEY)
        late = await kit.run("book_room", {"url": provider.url}, key=KEY, deadline=kit.clock.now())

    assert [Code.NOT_FOUND, Code.DEADLINE_EXCEEDED] == [ran.code, late.code]
    for told in (ran.result.error, late.result.error):
        assert told is not None
        assert "unknown" == (told.data or {})["outcome"]


async def test_an_undo_waits_for_a_keyed_call_that_still_blocks(bench: Bench) -> None:
    go_on = threading.Event()
    bench.shop.before = lambda: go_on.wait(5)
    outcome = await bench.run("blocking_keyed")
    bench.clock.skip(60)

    with pytest.raises(Snooze, match="still goes on"):
        await bench.run("blocking_keyed", mode="undo")
    go_on.set()
    assert outcome.still_running is not None
    await outcome.still_running
    undone = await bench.run("blocking_keyed", mode="undo")

    assert (Code.TIMEOUT, True) == (said(outcome)[0], outcome.is_uncertain)
    assert ({"undone": True}, []) == (undone.data, bench.shop.orders)


@pytest.mark.parametrize("action", ["keyed", "found"])
async def test_an_uncertain_attempt_outlives_the_ledger_by_its_jobs_headers(
    bench: Bench, action: str
) -> None:
    bench.shop.then = _fail(Timeout("the answer was lost"))
    first = await bench.run(action)
    bench.ledger.clear()
    bench.shop.then = lambda: None
    bench.shop.orders[:] = [KEY]
    job = Job(id="j", connector="shop", action=action, idempotency_key=KEY)
    attempt = Attempt(Deadline(None, bench.clock), attempts=first.attempts, is_uncertain=True)

    outcome = await bench.executors[0].execute(job, attempt)

    assert (action == "keyed") is (True in bench.shop.repeats)
    assert ("found" if action == "found" else "order 2") == outcome.data


@pytest.mark.parametrize("action", ["keyed", "write"])
async def test_a_copy_with_time_left_runs_though_the_other_came_too_late(bench: Bench, action: str) -> None:
    late = asyncio.create_task(bench.run(action, bench.worker(), in_s=-1))
    await asyncio.sleep(0)
    in_time = asyncio.create_task(bench.run(action, in_s=60))

    outcomes = [await late, await in_time]

    assert (Code.DEADLINE_EXCEEDED, "not_started") == said(outcomes[0])
    assert "order 1" == outcomes[1].data


async def test_copies_with_one_deadline_are_answered_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second asked the ledger once more, past its deadline."""
    asked: list[str] = []

    async def away(*_: object) -> None:
        raise LedgerUnavailable("no database")

    async def look_up(*_: object) -> None:
        asked.append("look_up")
        raise LedgerUnavailable("no database")

    for name, answer in (("claim", away), ("look_up", look_up)):
        monkeypatch.setattr(bench.ledger, name, answer)
    monkeypatch.setattr(bench.ledger, "wait_available", lambda _: asyncio.Event().wait())
    at = Deadline(bench.clock.now() + timedelta(seconds=2), bench.clock)
    job = Job(id="j", connector="shop", action="keyed", idempotency_key=KEY)
    worker = bench.worker()

    copies = [asyncio.create_task(worker.execute(job, Attempt(at))) for _ in range(2)]
    await asyncio.sleep(0.01)
    bench.clock.skip(2)
    outcomes = await asyncio.gather(*copies)

    assert [(Code.DEADLINE_EXCEEDED, "unknown")] * 2 == [said(each) for each in outcomes]
    assert [] == asked


@pytest.mark.parametrize("in_s", [60, -1])
async def test_a_worker_that_stood_still_before_its_answer_is_not_certain(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, in_s: float
) -> None:
    """Its lease was over when it went on: a copy elsewhere may have had the effect."""
    name = "release" if in_s > 0 else "look_up"
    answer = getattr(bench.ledger, name)

    async def answer_and_stall(*args: object, **options: object) -> object:
        await asyncio.sleep(0)  # its caller waits by now
        asyncio.get_running_loop().call_soon(bench.clock.skip, 20)
        return await answer(*args, **options)

    monkeypatch.setattr(bench.ledger, name, answer_and_stall)
    bench.shop.before = _fail(Unavailable("connection refused", sent=Sent.NO))

    outcome = await bench.run("keyed", in_s=in_s)

    assert outcome.is_uncertain
    assert in_s > 0 or (Code.DEADLINE_EXCEEDED, "unknown") == said(outcome)
