"""The ordinary provider: it takes no idempotency key, but can be asked for bookings by reference.

It makes the booking and then loses the answer, or is slow. What happens to a request depends on the seed, the
booking's reference and how often that was requested, so that every contestant meets the same faults.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from aiohttp import web

from tests.duel.plan import Plan


class Provider:
    """An HTTP service: `POST /bookings` books each time, `GET /bookings?reference=…` lists what is booked."""

    def __init__(self, plan: Plan, journal: Path) -> None:
        self._plan = plan
        self._journal = journal.open("a")
        self._booked: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/bookings", self._book)
        app.router.add_get("/bookings", self._list)
        return app

    async def _book(self, request: web.Request) -> web.Response:
        reference = (await request.json())["reference"]
        self._requests[reference] += 1
        self._write("requested", reference)
        slow_s, is_lost = self._fate(reference)
        await asyncio.sleep(slow_s / 2)
        self._booked[reference] += 1
        self._write("booked", reference)
        await asyncio.sleep(slow_s / 2)
        self._write("lost" if is_lost else "answered", reference)
        if is_lost and request.transport is not None:
            request.transport.abort()
        return web.json_response({"reference": reference}, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        reference = request.query["reference"]
        self._write("asked for", reference)
        return web.json_response({"bookings": [{"reference": reference}] * self._booked[reference]})

    def _fate(self, reference: str) -> tuple[float, bool]:
        plan = self._plan
        part = random.Random(f"{plan.seed}/{reference}/{self._requests[reference]}").random()
        if part < plan.loses:
            return 0.0, True
        if part < plan.loses + plan.slow:
            return plan.slow_s, False
        return (plan.slower_s if part < plan.loses + plan.slow + plan.slower else 0.0), False

    def _write(self, event: str, reference: str) -> None:
        print(
            json.dumps({"at": time.time(), "event": event, "reference": reference}),
            file=self._journal,
            flush=True,
        )


if __name__ == "__main__":
    port, journal, plan = sys.argv[1:]
    provider = Provider(Plan.from_json(plan), Path(journal))
    web.run_app(provider.app(), host="127.0.0.1", port=int(port), print=lambda _: print("ready", flush=True))
