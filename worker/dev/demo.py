"""The main job, shown: a handful of jobs through a real broker and a real vault, and what became of each."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from aiohttp import web
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape

from schemas.job import Job
from schemas.result import Result
from worker.client import ConnectorsClient
from worker.dead_letters import DeadLetters
from worker.dev.stack import Stack, until_interrupted
from worker.settings import load_settings

_TIMEOUT_S = 20.0


class Shop:
    """The other system of the demo: an API on loopback that wants a token, and has moods."""

    def __init__(self) -> None:
        self.token = uuid4().hex
        #: Answers 503 so many times before it works.
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


@dataclass(slots=True)
class Narrator:
    """Tells a person what was sent and what came back."""

    console: Console
    number: int = 0

    def say(self, text: str) -> None:
        """Say a plain line."""
        self.console.print(text, highlight=False)

    def step(self, title: str, job: Job) -> None:
        """Announce a job."""
        self.number += 1
        params = ", ".join(f"{name}={value!r}" for name, value in job.params.items())
        self.say(f"\n[bold]{self.number}. {escape(title)}[/]")
        self.say(f"   sent      {job.connector}.{job.action}({escape(params)})")

    def answer(self, result: Result) -> None:
        """Show a reply."""
        tries = f" after {result.attempts} tries" if result.attempts > 1 else ""
        if result.error is None:
            self.say(
                f"   answered  [green]succeeded[/]{tries} in {result.duration_ms:g} ms: {escape(str(result.data))}"
            )
            return
        self.say(f"   answered  [red]{result.error.code}[/]{tries}: {escape(result.error.message)}")
        self.say(f"   an agent may say: “{escape(result.error.say)}”")


async def run_demo(*, keep: bool = False) -> int:
    """Start everything, tell the story, and give the exit code."""
    began = time.monotonic()
    tell = Narrator(Console(soft_wrap=True))
    tell.say("Starting a private RabbitMQ, a private OpenBao and a worker …")
    shop = Shop()
    await shop.start()
    try:
        async with Stack(load_settings()) as stack:
            tell.say(f"Ready in {time.monotonic() - began:.1f} s.")
            ok = await _story(stack, shop, tell)
            tell.say(f"\nThe worker's metrics: {stack.metrics_url}/metrics")
            for line in await _metric_lines(stack):
                tell.say(f"   {escape(line)}")
            tell.say(f"\nDone in {time.monotonic() - began:.1f} s; everything is stopped and removed.")
            if keep:
                tell.say(f"--keep: still up, status page {stack.metrics_url}/ ; Ctrl-C stops it.")
                return await until_interrupted(stack)
            return 0 if ok else 1
    finally:
        await shop.stop()


async def _story(stack: Stack, shop: Shop, tell: Narrator) -> bool:
    """Send the jobs; True where each ended as it should."""
    assert stack.vault is not None
    await stack.vault.put_secret(
        "connectors/acme/http/shop", {"base_url": shop.url, "auth": "bearer", "token": shop.token}
    )
    tell.say(
        "Stored the credential [bold]shop[/] of the tenant [bold]acme[/] in the vault; jobs only name it."
    )
    good: list[bool] = []
    async with ConnectorsClient(stack.rabbitmq_url) as client:

        async def send(title: str, job: Job) -> Result:
            tell.step(title, job)
            result = await client.send(job, timeout_s=_TIMEOUT_S)
            tell.answer(result)
            return result

        result = await send("A job is answered", _job("dummy", "echo", {"message": "Merhaba"}))
        good.append(result.data == {"received_message": "Merhaba"})

        result = await send("Wrong parameters are named", _job("dummy", "echo", {"massage": "Merhaba"}))
        good.append(result.error is not None and result.error.code == "INVALID_PARAMS")

        result = await send("A connector that nobody runs", _job("fax", "send", {"to": "4711"}))
        good.append(result.error is not None and result.error.code == "CONNECTOR_NOT_FOUND")

        order = {"method": "GET", "path": "/orders/17"}
        result = await send("A call with the credential from the vault", _shop_job(order))
        good.append(result.status == "succeeded")

        shop.failures_left = 1
        result = await send("The other system fails once, and the worker tries again", _shop_job(order))
        good.append(result.status == "succeeded" and result.attempts == 2)

        good.append(await _dead_and_replayed(stack, shop, client, tell))
    return all(good)


async def _dead_and_replayed(stack: Stack, shop: Shop, client: ConnectorsClient, tell: Narrator) -> bool:
    """Let a job end dead for want of an order, put the order there, and replay the job."""
    job = Job(
        id=f"demo-{uuid4().hex[:8]}",
        connector="http",
        action="request",
        params={"method": "GET", "path": "/orders/18"},
        tenant="acme",
        credential="shop",
    )
    tell.step("A job that nobody waits for fails: it is kept, with the reason", job)
    await client.publish(job)
    settings = stack.settings.model_copy(update={"rabbitmq_url": SecretStr(stack.rabbitmq_url)})
    async with DeadLetters(settings) as letters:
        found: list[Mapping[str, Any]] = []
        for _ in range(200):
            found = [each.summary() for each in await letters.all() if each.job_id == job.id]
            if found:
                break
            await asyncio.sleep(0.05)
        if not found:
            tell.say("   [red]no dead letter came[/]")
            return False
        tell.say(f"   parked    [yellow]{found[0]['reason']}[/]: {escape(str(found[0]['error']))}")
        shop.orders.add("18")
        tell.say("   mended    the order is there now")
        replayed = await letters.replay(lambda letter: letter.job_id == job.id)
        tell.say(f"   replayed  {len(replayed)} job, its id and key unchanged")
    async with DeadLetters(settings) as letters:
        for _ in range(100):
            if (
                'connectors_jobs_total{action="request",connector="http",outcome="succeeded"} 3.0'
                in await _metrics(stack)
            ):
                left = len(await letters.all())
                tell.say(f"   [green]succeeded[/]; {left or 'no'} dead letters are left")
                return left == 0
            await asyncio.sleep(0.05)
    return False


def _job(connector: str, action: str, params: dict[str, Any]) -> Job:
    return Job(id=f"demo-{uuid4().hex[:8]}", connector=connector, action=action, params=params)


def _shop_job(params: dict[str, Any]) -> Job:
    return _job("http", "request", params).model_copy(update={"tenant": "acme", "credential": "shop"})


async def _metrics(stack: Stack) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{stack.metrics_url}/metrics")).text


async def _metric_lines(stack: Stack) -> list[str]:
    wanted = ("connectors_jobs_total", "connectors_retries_total", "connectors_dead_letters_total")
    return [
        line
        for line in (await _metrics(stack)).splitlines()
        if line.startswith(wanted) and not line.endswith(" 0.0")
    ]
