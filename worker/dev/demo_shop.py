"""A shop's API that fails on demand: a call is retried, a job is dead-lettered, fixed and replayed."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import httpx
from aiohttp import web
from pydantic import SecretStr
from rich.markup import escape

from schemas.job import Job
from worker.admin.dead_letters import DeadLetterQueue
from worker.client import ConnectorsClient
from worker.dev.demo_output import DemoOutput
from worker.dev.stack import Stack

_TIMEOUT_S: Final = 20.0


class Shop:
    """The demo's shop: an API on loopback that requires a token and fails on demand."""

    def __init__(self) -> None:
        self.token = uuid4().hex
        #: Requests that are answered 503 before it works.
        self.failures_left = 0
        self.orders = {"17"}
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free loopback port."""
        app = web.Application()
        app.router.add_get("/orders/{number}", self._order)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _order(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "who are you?"}, status=401)
        if self.failures_left > 0:
            self.failures_left -= 1
            return web.json_response({"error": "try later"}, status=503)
        number = request.match_info["number"]
        if number not in self.orders:
            return web.json_response({"error": "no such order"}, status=404)
        return web.json_response({"number": number, "status": "shipped"})


async def show_shop(stack: Stack, shop: Shop, client: ConnectorsClient, output: DemoOutput) -> bool:
    """Show a call that fails once, then a dead-lettered job; return whether each ended as it should."""
    assert stack.vault is not None
    await stack.vault.put_secret(
        "connectors/acme/http/shop", {"base_url": shop.url, "auth": "bearer", "token": shop.token}
    )
    job = _job("/orders/17")
    output.step("Another system fails once, and the worker retries", job)
    shop.failures_left = 1
    result = await client.send(job, timeout_s=_TIMEOUT_S)
    output.reply(result, str((result.data or {}).get("body")))
    is_good = result.status == "succeeded" and result.attempts == 2
    return await _dead_and_replayed(stack, shop, client, output) and is_good


async def _dead_and_replayed(stack: Stack, shop: Shop, client: ConnectorsClient, output: DemoOutput) -> bool:
    """Show a job dead-lettered because its order is missing; add the order and replay the job."""
    job = _job("/orders/18")
    output.step("A job without a caller fails: it is dead-lettered, with the reason", job)
    await client.publish(job)
    settings = stack.settings.model_copy(update={"rabbitmq_url": SecretStr(stack.rabbitmq_url)})
    async with DeadLetterQueue(settings) as dead_letters:
        found: list[Mapping[str, Any]] = []
        for _ in range(200):
            found = [each.summary() for each in await dead_letters.all() if each.job_id == job.id]
            if found:
                break
            await asyncio.sleep(0.05)
        if not found:
            output.line("   [red]no dead letter arrived[/]")
            return False
        output.line(f"   dead      [yellow]{found[0]['reason']}[/]: {escape(str(found[0]['error']))}")
        shop.orders.add("18")
        output.line("   fixed     the order exists now")
        replayed = await dead_letters.replay(lambda each: each.job_id == job.id)
        output.line(f"   replayed  {len(replayed)} job, its id and key unchanged")
    async with DeadLetterQueue(settings) as dead_letters:
        for _ in range(100):
            if (
                'connectors_jobs_total{action="request",connector="http",outcome="succeeded"} 2.0'
                in await read_metrics(stack)
            ):
                left = len(await dead_letters.all())
                output.line(f"   [green]succeeded[/]; {left or 'no'} dead letters are left")
                return left == 0
            await asyncio.sleep(0.05)
    return False


def _job(path: str) -> Job:
    return Job(
        id=f"demo-{uuid4().hex[:8]}",
        connector="http",
        action="request",
        params={"method": "GET", "path": path},
        tenant="acme",
        credential="shop",
    )


async def read_metrics(stack: Stack) -> str:
    """Return the worker's metrics."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{stack.metrics_url}/metrics")).text
