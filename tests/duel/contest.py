"""One contestant's run: two workers, a provider in a process of its own, callers, and a kill -9 in the middle."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.duel.count import Tally
from tests.duel.plan import Plan
from worker.dev.ports import free_ports
from worker.dev.process import ChildProcess, base_environment, run

ROOT = Path(__file__).parents[2]
#: Of the workers, the first is killed and started again at once.
WORKERS = 2
START_TIMEOUT_S = 60.0
#: For the callers as a whole, and for the provider to become quiet.
CALLERS_TIMEOUT_S = 180.0
SETTLE_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Contestant:
    """How one is run: its Python, and the arguments of a worker (by number) and of its callers."""

    name: str
    python: str
    worker: Callable[[int], list[str]]
    callers: list[str]
    #: What a worker's log says once it takes bookings.
    ready: str
    environment: dict[str, str] = field(default_factory=dict)


class Journal:
    """The provider's, while it is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def until_requested(self, count: int) -> None:
        """Wait until so many bookings were requested."""
        while len({each["reference"] for each in self._events()}) < count:
            await asyncio.sleep(0.02)

    async def until_quiet(self, quiet_s: float) -> None:
        """Wait until the provider has heard and done nothing for a while."""
        give_up = time.monotonic() + SETTLE_TIMEOUT_S
        while time.time() < max((each["at"] for each in self._events()), default=0.0) + quiet_s:
            assert time.monotonic() < give_up, f"the provider is still called after {SETTLE_TIMEOUT_S:g} s"
            await asyncio.sleep(0.1)

    def _events(self) -> list[dict[str, float]]:
        # The last line may be half written.
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if "\n" in line]


async def compete(contestant: Contestant, plan: Plan, folder: Path) -> Tally:
    """Put one contestant through the plan, and count."""
    folder.mkdir(parents=True)
    journal = Journal(folder / "journal.ndjson")
    journal.path.touch()
    port = free_ports(1)[0]
    environment = {
        **base_environment(),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "BOOKINGS_URL": f"http://127.0.0.1:{port}",
        "BOOKINGS_TIMEOUT_S": str(plan.timeout_s),
        "DUEL_PLAN": plan.to_json(),
        **contestant.environment,
    }

    def process(name: str, command: list[str]) -> ChildProcess:
        home = folder / name
        home.mkdir()
        own = {"CONNECTORS_DATA_DIR": str(home / "data")}
        return ChildProcess(name, command, env=environment | own, cwd=home, log=home / "log")

    async with AsyncExitStack() as stack:
        provider = process(
            "provider",
            [sys.executable, "-m", "tests.duel.provider", str(port), str(journal.path), plan.to_json()],
        )
        workers = [
            process(f"worker-{number}", [contestant.python, *contestant.worker(number)])
            for number in range(WORKERS)
        ]
        for each in (provider, *workers):
            each.start()
            stack.push_async_callback(each.kill)
        await _until_logged(provider, "ready")
        for worker in workers:
            await _until_logged(worker, contestant.ready)
        calling = asyncio.create_task(
            run([contestant.python, *contestant.callers], env=environment, timeout_s=CALLERS_TIMEOUT_S)
        )
        killing = asyncio.create_task(_kill_in_the_middle(workers[0], journal, plan))
        try:
            heard = await calling
        finally:
            killing.cancel()
        await journal.until_quiet(plan.quiet_s)
    return Tally.read(plan, journal.path.read_text(), heard)


async def _kill_in_the_middle(worker: ChildProcess, journal: Journal, plan: Plan) -> None:
    await journal.until_requested(plan.bookings // 2)
    await worker.kill()
    worker.start()


async def _until_logged(process: ChildProcess, text: str) -> None:
    async def is_logged() -> bool:
        return text in process.log.read_text(errors="replace")

    await process.wait_until(is_logged, timeout_s=START_TIMEOUT_S)
