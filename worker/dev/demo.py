"""The main job, shown: an appointment through a real broker and a real vault, and what becomes of it."""

import time
from uuid import uuid4

from rich.console import Console
from rich.markup import escape

from schemas.job import Job
from worker.client import ConnectorsClient
from worker.dev.demo_appointment import tell_appointment
from worker.dev.demo_crm import tell_crm
from worker.dev.demo_shop import Shop, read_metrics, tell_shop
from worker.dev.narrator import Narrator
from worker.dev.stack import Stack, until_interrupted
from worker.settings import load_settings


async def run_demo(*, keep: bool = False) -> int:
    """Start everything, tell the story, and give the exit code."""
    began = time.monotonic()
    tell = Narrator(Console(soft_wrap=True))
    tell.say("Starting a private RabbitMQ, a private OpenBao, a calendar, a Salesforce and a worker …")
    shop = Shop()
    await shop.start()
    try:
        async with Stack(load_settings(), worker_module="worker.dev.hasty_worker") as stack:
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
    async with ConnectorsClient(stack.rabbitmq_url) as client:
        good = [await tell_appointment(stack, client, tell)]
        wrong = Job(
            id=f"demo-{uuid4().hex[:8]}",
            connector="google_calendar",
            action="book_appointment",
            params={"summary": "Check-up", "start": "tomorrow", "duration_minutes": 30},
        )
        tell.step("What makes no sense is refused before any call, and named", wrong)
        refused = await client.send(wrong, timeout_s=5)
        tell.answer(refused)
        good.append(refused.error is not None and refused.error.code == "INVALID_PARAMS")
        good.append(await tell_crm(stack, client, tell))
        good.append(await tell_shop(stack, shop, client, tell))
    return all(good)


async def _metric_lines(stack: Stack) -> list[str]:
    wanted = ("connectors_jobs_total", "connectors_retries_total", "connectors_dead_letters_total")
    return [
        line
        for line in (await read_metrics(stack)).splitlines()
        if line.startswith(wanted) and not line.endswith(" 0.0")
    ]
