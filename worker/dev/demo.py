"""The demo: an appointment through a real broker and a real vault, booked once although its worker is killed."""

import time
from uuid import uuid4

from rich.console import Console
from rich.markup import escape

from schemas.job import Job
from worker.client import ConnectorsClient
from worker.dev.demo_appointment import show_appointment
from worker.dev.demo_crm import show_crm
from worker.dev.demo_output import DemoOutput
from worker.dev.demo_shop import Shop, read_metrics, show_shop
from worker.dev.stack import Stack, until_interrupted
from worker.settings import load_settings


async def run_demo(*, keep: bool = False) -> int:
    """Start everything, run the scenario, and return the exit code."""
    began = time.monotonic()
    output = DemoOutput(Console(soft_wrap=True))
    output.line("Starting a private RabbitMQ, a private OpenBao, a calendar, a Salesforce and a worker …")
    shop = Shop()
    await shop.start()
    try:
        async with Stack(load_settings(), worker_module="worker.dev.short_lease_worker") as stack:
            output.line(f"Ready in {time.monotonic() - began:.1f} s.")
            ok = await _show(stack, shop, output)
            output.line(f"\nThe worker's metrics: {stack.metrics_url}/metrics")
            for line in await _metric_lines(stack):
                output.line(f"   {escape(line)}")
            output.line(f"\nDone in {time.monotonic() - began:.1f} s; everything is stopped and removed.")
            if keep:
                output.line(f"--keep: still up, status page {stack.metrics_url}/ ; Ctrl-C stops it.")
                return await until_interrupted(stack)
            return 0 if ok else 1
    finally:
        await shop.stop()


async def _show(stack: Stack, shop: Shop, output: DemoOutput) -> bool:
    """Send the jobs; return whether each ended as it should."""
    async with ConnectorsClient(stack.rabbitmq_url) as client:
        good = [await show_appointment(stack, client, output)]
        wrong = Job(
            id=f"demo-{uuid4().hex[:8]}",
            connector="google_calendar",
            action="book_appointment",
            params={"summary": "Check-up", "start": "tomorrow", "duration_minutes": 30},
        )
        output.step("Wrong parameters are refused before any call, and named", wrong)
        refused = await client.send(wrong, timeout_s=5)
        output.reply(refused)
        good.append(refused.error is not None and refused.error.code == "INVALID_PARAMS")
        good.append(await show_crm(stack, client, output))
        good.append(await show_shop(stack, shop, client, output))
    return all(good)


async def _metric_lines(stack: Stack) -> list[str]:
    wanted = ("connectors_jobs_total", "connectors_retries_total", "connectors_dead_letters_total")
    return [
        line
        for line in (await read_metrics(stack)).splitlines()
        if line.startswith(wanted) and not line.endswith(" 0.0")
    ]
