"""Who is answered late, and why: each load under which a deadline was once missed, measured beside what is promised.

`python -m tests.bench.late`, or with the names of some rows. A private broker; a worker of its own for each row.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench import processes
from tests.bench.late_bench import Bench, Measured
from tests.bench.late_rows import ROWS
from worker.dev.rabbitmq import PrivateRabbitMQ


async def _measure(rows: list[str]) -> None:
    processes.warn_if_loud(processes.load())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
            for row in rows:
                what, _, promised = (ROWS[row].__doc__ or "").partition(" | ")
                async with AsyncExitStack() as ends:
                    try:
                        measured = await ROWS[row](Bench(broker, folder, ends, row))
                    except AssertionError as failure:
                        measured = Measured(f"not measured: {failure}", is_ok=False)
                ok = "ok" if measured.is_ok else "NOT OK"
                print(f"{row}: {what}\n    measured {measured.said}; should be {promised}: {ok}", flush=True)


def main(arguments: list[str]) -> None:
    """Measure the rows that were named, or all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    asyncio.run(_measure(options.parse_args(arguments).rows or list(ROWS)))


if __name__ == "__main__":
    main(sys.argv[1:])
