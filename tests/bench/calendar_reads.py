"""Calendar reads at once: the connector beside google-api-python-client in a pool of threads."""

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import google_auth_httplib2
import httplib2
from aiohttp import web
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build

from connectors.google_calendar import google_calendar
from connectors.google_calendar.slots import Hours, Search, find_slots
from connectors.google_calendar.zones import zone_named
from connectors.sdk.context import Context
from connectors.sdk.http.client import HttpPolicy, HttpPool

CALLS = 2000
AT_ONCE = 200
ROUNDS = 3
#: Seconds that the server takes for each answer.
DELAY_S = 0.05
#: Threads of the client's pool; with more it gets no faster.
THREADS = 64

DAY = {"timeMin": "2026-03-09T00:00:00+00:00", "timeMax": "2026-03-10T00:00:00+00:00"}
BUSY = {
    "busy": [
        {"start": f"2026-03-09T{hour:02}:00:00Z", "end": f"2026-03-09T{hour:02}:30:00Z"} for hour in range(20)
    ]
}


@dataclass(frozen=True)
class Measured:
    """One round."""

    calls_per_s: float
    cpu_ms: float


async def serve() -> None:
    """Answer every call after a while, until the standard input ends."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        if request.path == "/token":
            return web.json_response({"access_token": "token", "expires_in": 3600})
        await asyncio.sleep(DELAY_S)
        return web.json_response({"calendars": {"primary": BUSY}})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def ours(url: str) -> Measured:
    """Run `check_availability` as a worker does."""
    google_calendar.settings["api_url"] = f"{url}/calendar/v3"
    document = {
        "type": "authorized_user",
        "client_id": "id",
        "client_secret": "secret",
        "refresh_token": "refresh",
        "token_uri": f"{url}/token",
    }
    action = google_calendar.actions["check_availability"]
    pool = HttpPool(HttpPolicy(max_connections_per_host=AT_ONCE))

    async def call() -> None:
        params = action.signature.read(
            {"start": "2026-03-09T09:00:00Z", "duration_minutes": 30, "time_zone": "UTC"}
        )
        context: Context[Any] = Context(
            job_id="bench",
            tenant="default",
            connector="google_calendar",
            action="check_availability",
            idempotency_key="bench",
            credential=google_calendar.read_credential(document),
            http=pool.client(tenant="default", connector="google_calendar", credential="default"),
        )
        action.dump(await action.call(params, context))

    async def run(count: int) -> None:
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await call()

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    try:
        await run(AT_ONCE)  # connections and token
        return await _timed(lambda: run(CALLS))
    finally:
        await pool.close()


async def theirs(url: str) -> Measured:
    """Run the same query through the client's own transport, one `Http` a thread."""
    service = build(
        "calendar",
        "v3",
        http=httplib2.Http(),
        static_discovery=True,
        client_options={"api_endpoint": f"{url}/calendar/v3/"},
    )
    freebusy, held = service.freebusy(), threading.local()

    def call(_: int) -> None:
        if not hasattr(held, "http"):
            credentials = Credentials(token="token")  # type: ignore[no-untyped-call]
            held.http = google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http(timeout=10))
        freebusy.query(body={**DAY, "items": [{"id": "primary"}]}).execute(http=held.http)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(call, range(AT_ONCE)))
        return await _timed(lambda: asyncio.to_thread(lambda: list(threads.map(call, range(CALLS)))))


def slot_search_ms() -> tuple[int, float]:
    """Search two months at a step of five minutes among 200 busy periods: slots found, CPU."""
    start = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    busy = [(start + n * 25_000, start + n * 25_000 + 5400) for n in range(200)]
    zone = zone_named("America/New_York")
    search = Search(zone, (start, start + 61 * 86_400), 1800, 300, Hours(), 600, 600)
    found, spent = 0, []
    for _ in range(7):
        cpu = time.process_time()
        found = sum(1 for _ in find_slots(search, {"primary": busy}, "all"))
        spent.append((time.process_time() - cpu) * 1000)
    return found, statistics.median(spent)


async def _timed(run: Callable[[], Any]) -> Measured:
    cpu, began = time.process_time(), time.perf_counter()
    await run()
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return Measured(CALLS / took_s, cpu_s / CALLS * 1000)


def main(_arguments: list[str]) -> None:
    """Measure in turns, and print the medians."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.calendar_reads", "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        found: dict[str, list[Measured]] = {"connector": [], "client": []}
        for _ in range(ROUNDS):
            found["connector"].append(asyncio.run(ours(url)))
            found["client"].append(asyncio.run(theirs(url)))
    finally:
        server.stdin.close()
        server.wait(timeout=10)
    print(
        f"{CALLS} calendar reads, {AT_ONCE} at once, a server that takes {DELAY_S * 1000:g} ms. "
        f"Medians of {ROUNDS} rounds.\n"
    )
    print(f"{'':16}{'connector':>12}{'client':>12}{'ratio':>8}")
    for field, title in (("calls_per_s", "calls/s"), ("cpu_ms", "CPU ms a call")):
        mine, other = (statistics.median(getattr(each, field) for each in found[who]) for who in found)
        print(f"{title:16}{mine:12.2f}{other:12.2f}{mine / other:8.2f}")
    print(
        f"\n`client` is google-api-python-client with {THREADS} threads, one Http each: no checks of "
        "parameters,\nno limits, no deadline, and a POST that is cut is sent again by itself."
    )
    slots, cpu_ms = slot_search_ms()
    print(f"\nSlot search, 2 months by 5 minutes, 200 busy periods: {slots} slots, {cpu_ms:.1f} ms CPU.")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main([])
