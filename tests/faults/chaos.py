"""Kill at random, then count: `make chaos JOBS=10000 KILLS=50`, or a short run among the tests.

Jobs of each effect go through several workers on PostgreSQL while workers, broker, vault and ledger are killed
with -9 at random and started again, workers are told twice to stop, and commits are held up. The provider answers
some writes with a 5xx once it has done them, and refuses the second of two. Some jobs have a deadline. The
provider's journal is the oracle.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pika.exceptions
from rich.progress import Progress

from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ

WORKERS = 3
REPLIES = "chaos.replies"
#: By action: what it is, and what it leaves at the provider. What reads takes its secret from the vault.
ACTIONS = {
    "book": ("KEYED", "bookings"),
    "jot": ("WRITE, found again", "notes"),
    "scribble": ("WRITE", "notes"),
    "pair": ("WRITE of two requests", "firsts"),
    "steps": ("WRITE in steps", "firsts"),
    "request": ("READ", ""),
}
#: What cannot be found again: its outcome may be unknown.
UNFINDABLE = {"scribble", "pair", "steps"}
#: Of the writes, how many are answered 5xx once they are done, and how many second requests are refused.
FAILS_AFTER, REFUSES_SECOND = 0.05, 0.3
#: Of the jobs, how many have a deadline, and in how many seconds.
WITH_DEADLINE, DEADLINE_S = 0.2, (0.5, 8.0)
#: Seconds for which commits are held up, as a backup does.
HELD_UP_S = 3.0
#: Seconds between two kills: time for something to be under way again.
BETWEEN_KILLS_S = (0.5, 2.0)
#: Seconds without a new answer after which the rest counts as lost.
PATIENCE_S = 90.0
PLUGIN = Path(__file__).parents[1] / "support" / "plugin"


@dataclass
class Tally:
    """What was sent, what came back, what happened."""

    sent: dict[str, tuple[str, str]] = field(default_factory=dict)
    replies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)

    def lost(self) -> list[str]:
        """Correlation ids without an answer."""
        return [each for each in self.sent if each not in self.replies]

    def doubled(self) -> list[tuple[str, str]]:
        """Keys whose effect happened more than once."""
        return [effect for effect, count in self.effects.items() if count > 1]

    def wrong(self) -> list[str]:
        """Answers that the journal contradicts."""
        found = []
        for correlation_id, (action, key) in self.sent.items():
            kind = ACTIONS[action][1]
            for reply in self.replies.get(correlation_id, ()):
                happened = kind == "" or self.effects[(kind, key)] == 1
                error = reply["error"] or {}
                code, outcome = error.get("code"), (error.get("data") or {}).get("outcome")
                if not _is_true(action, code, outcome, happened=happened, is_read=kind == ""):
                    found.append(f"{action} {key}: {reply['status']} {code} {outcome}, happened: {happened}")
        return found

    def table(self) -> str:
        """Say it in lines."""
        rows = [f"{'':20}{'jobs':>8}{'answered':>10}{'effects':>9}{'unknown':>9}{'doubled':>9}{'lost':>6}"]
        for action, (effect, kind) in ACTIONS.items():
            ids = [each for each, (what, _) in self.sent.items() if what == action]
            keys = {self.sent[each][1] for each in ids}
            effects = [self.effects[(kind, key)] for key in keys]
            unknown = sum(self.replies[each][0]["status"] == "failed" for each in ids if each in self.replies)
            rows.append(
                f"{effect:20}{len(ids):8}{sum(each in self.replies for each in ids):10}"
                f"{sum(effects):9}{unknown:9}{sum(count > 1 for count in effects):9}"
                f"{sum(each not in self.replies for each in ids):6}"
            )
        rows.append("killed: " + ", ".join(f"{what} {count} times" for what, count in self.kills.items()))
        return "\n".join(rows)


def _is_true(action: str, code: str | None, outcome: str | None, *, happened: bool, is_read: bool) -> bool:
    """Whether a reply agrees with what happened."""
    if code is None:
        return happened
    if code == "DEADLINE_EXCEEDED":
        return is_read or outcome == "unknown" or not happened
    return code == "OUTCOME_UNKNOWN" and action in UNFINDABLE


async def run_chaos(jobs: int, kills: int, folder: Path, *, seed: int, show: bool = False) -> Tally:
    """Run it all, and give the count."""
    chance = random.Random(seed)
    tally = Tally()
    async with AsyncExitStack() as stack:
        provider = Provider()
        await provider.start()
        stack.push_async_callback(provider.stop)
        broker = await stack.enter_async_context(PrivateRabbitMQ(folder / "rabbitmq"))
        postgres = await stack.enter_async_context(PrivatePostgres(folder / "postgres"))
        vault = PrivateOpenBao(folder / "openbao")
        await vault.start()
        stack.push_async_callback(vault.stop)
        settings = {
            **await _vault_settings(vault, provider.url, folder),
            "CONNECTORS_RABBITMQ_URL": broker.url,
            "CONNECTORS_DATABASE_URL": postgres.url,
            "CONNECTORS_ENABLED": "effects,http",
            "CONNECTORS_TENANT_CONCURRENCY": "100",
            "CONNECTORS_MAX_ATTEMPTS": "20",
            "EFFECTS_URL": provider.url,
            "PYTHONPATH": str(PLUGIN),
        }
        workers = [
            WorkerProcess(settings, folder / f"worker-{number}", failing=True) for number in range(WORKERS)
        ]
        for worker in workers:
            stack.callback(worker.close)
            worker.start()
        await asyncio.gather(*(worker.ready(60) for worker in workers))
        progress = stack.enter_context(Progress(disable=not show, transient=True))
        answered = progress.add_task("answers", total=jobs)
        killed = progress.add_task("kills", total=kills)
        provider.delay_s = 0.2  # so that a kill finds calls in flight
        provider.fails = lambda kind, key: 503 if kind and chance.random() < FAILS_AFTER else None
        provider.refuses = lambda kind, key: (
            429 if kind == "pairs" and chance.random() < REFUSES_SECOND else None
        )
        pause_s = kills * sum(BETWEEN_KILLS_S) / 2 / jobs
        publishing = asyncio.create_task(
            asyncio.to_thread(_publish, broker.url, jobs, pause_s, chance, tally)
        )
        servers: dict[str, PrivateRabbitMQ | PrivateOpenBao | PrivatePostgres] = {
            "broker": broker,
            "vault": vault,
            "ledger": postgres,
        }
        killing = asyncio.create_task(_kill(kills, chance, workers, servers, tally))
        collecting = asyncio.create_task(asyncio.to_thread(_collect, broker.url, jobs, tally))
        while not collecting.done():
            if killing.done():
                killing.result()  # a server that did not come back ends the run
            progress.update(answered, completed=len(tally.replies))
            progress.update(killed, completed=tally.kills.total())
            await asyncio.sleep(0.2)
        killing.cancel()  # where answers stopped coming, so do the kills
        await asyncio.gather(killing, return_exceptions=True)
        await asyncio.gather(publishing, collecting)
        tally.effects = provider.effects()
    return tally


async def _vault_settings(vault: PrivateOpenBao, provider: str, folder: Path) -> dict[str, str]:
    """Put the provider's address into the vault, and say how a worker logs in."""
    await vault.put_secret("connectors/default/http/default", {"base_url": provider})
    role = await vault.enable_approle()
    secret_id = folder / "secret-id"
    secret_id.touch(mode=0o600)
    secret_id.write_text(role.secret_id.get_secret_value())
    return {
        "CONNECTORS_VAULT_URL": vault.url,
        "CONNECTORS_VAULT_ROLE_ID": role.role_id,
        "CONNECTORS_VAULT_SECRET_ID_FILE": str(secret_id),
    }


def _publish(url: str, jobs: int, pause_s: float, chance: random.Random, tally: Tally) -> None:
    """Publish with confirms; what was not confirmed is published again, under the same key."""
    for number in range(jobs):
        action = list(ACTIONS)[number % len(ACTIONS)]
        correlation_id, key = f"c{number}", f"{action}-{number}"
        tally.sent[correlation_id] = (action, key)
    waiting = list(tally.sent)
    while waiting:
        try:
            with ExternalClient(url, reply_queue=REPLIES, collects=False) as client:
                client.channel.confirm_delivery()
                while waiting:
                    action, key = tally.sent[waiting[-1]]
                    about: dict[str, Any] = {"id": key}
                    if chance.random() < WITH_DEADLINE:
                        at = datetime.now(UTC) + timedelta(seconds=chance.uniform(*DEADLINE_S))
                        about["deadline"] = at.isoformat()
                    body = (
                        job("http", "request", {"method": "GET", "path": "/alive"}, **about)
                        if action == "request"
                        else job("effects", action, **about)
                    )
                    for _ in range(2 if chance.random() < 0.1 else 1):  # some come twice
                        client.send(body, correlation_id=waiting[-1])
                    waiting.pop()
                    client.process(pause_s)
        except (pika.exceptions.AMQPError, OSError):
            time.sleep(0.3)


def _collect(url: str, jobs: int, tally: Tally) -> None:
    """Collect answers until all are there, or none has come for long."""
    last_at, last_count = time.monotonic(), 0
    while len(tally.replies) < jobs and time.monotonic() - last_at < PATIENCE_S:
        try:
            with ExternalClient(url, reply_queue=REPLIES) as client:
                client.replies = tally.replies
                while len(tally.replies) < jobs and time.monotonic() - last_at < PATIENCE_S:
                    if len(tally.replies) > last_count:
                        last_at, last_count = time.monotonic(), len(tally.replies)
                    client.process(0.2)
        except (pika.exceptions.AMQPError, OSError):
            time.sleep(0.3)


async def _kill(
    kills: int,
    chance: random.Random,
    workers: list[WorkerProcess],
    servers: Mapping[str, PrivateRabbitMQ | PrivateOpenBao | PrivatePostgres],
    tally: Tally,
) -> None:
    for number in range(kills):
        await asyncio.sleep(chance.uniform(*BETWEEN_KILLS_S))
        while len(tally.replies) < 0.9 * len(tally.sent) * number / kills:
            await asyncio.sleep(0.1)  # spread over the whole run
        what = chance.choices(
            ("worker", "two signals", "slow commits", *servers), weights=(6, 3, 2, 1, 1, 1)
        )[0]
        tally.kills[what] += 1
        worker = chance.choice(workers)
        if what == "worker":
            await asyncio.to_thread(worker.kill)
            worker.start()
        elif what == "two signals":
            await _hold_up(servers["ledger"])
            worker.signal(signal.SIGTERM)
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            worker.signal(signal.SIGTERM)
            try:
                await worker.wait(10.0)
            except (AssertionError, TimeoutError):
                await asyncio.to_thread(worker.kill)
            worker.start()
        elif what == "slow commits":
            await _hold_up(servers["ledger"])
        else:
            await servers[what].kill()
            await servers[what].restart()


async def _hold_up(ledger: PrivateRabbitMQ | PrivateOpenBao | PrivatePostgres) -> None:
    """Let no write of the ledger go through for a while, in the background."""
    assert isinstance(ledger, PrivatePostgres)
    try:
        connection = await asyncpg.connect(ledger.url)
        hold = connection.transaction()
        await hold.start()
        await connection.execute("LOCK TABLE connectors_ledger IN SHARE MODE")
    except (OSError, asyncpg.PostgresError):
        return  # it is just being started again

    async def release() -> None:
        await asyncio.sleep(HELD_UP_S)
        try:
            await hold.rollback()
            await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass  # it was killed meanwhile

    _HOLDS.add(task := asyncio.create_task(release()))
    task.add_done_callback(_HOLDS.discard)


_HOLDS: set[asyncio.Task[None]] = set()


def main() -> int:
    """Run from the command line; exit 1 where anything was lost, doubled or told wrongly."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=1000)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    given = options.parse_args()
    print(f"{given.jobs} jobs, {given.kills} kills, seed {given.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        tally = asyncio.run(
            run_chaos(given.jobs, given.kills, Path(name), seed=given.seed, show=sys.stderr.isatty())
        )
    print(tally.table())
    print(f"told wrongly: {len(tally.wrong())}; took {time.monotonic() - began:.0f} s")
    for fault in tally.wrong()[:20]:
        print(f"wrong: {fault}")
    return 1 if tally.lost() or tally.doubled() or tally.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
