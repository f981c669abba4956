"""Measured, never asserted: `python -m tests.bench [NAME…]`; without names the measures beside the peers.

The README of this folder says what each measure is, and how to add one.
"""

import argparse
import importlib
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench import drain, latency, processes, report, startup, svg
from tests.bench.contestants import ALL, FASTSTREAM, OURS, PEERS, PLAIN, ROOT
from tests.bench.measure import Measure, run_all
from tests.bench.session import Session
from worker.dev.rabbitmq import PrivateRabbitMQ

#: Measured of the contestants in turns, in one run.
MEASURES: Final[dict[str, Measure]] = {
    each.name: each
    for each in (
        drain.DRAIN,
        drain.IO,
        drain.BLOCKING,
        latency.IDLE,
        latency.HALF,
        drain.PROCESSES,
        drain.WAITING,
        drain.BODIES,
        startup.COLD,
        startup.HELP,
        startup.HELD,
    )
}
QUICK: Final = (drain.DRAIN, latency.IDLE, drain.IO)
#: A module each with a `main(arguments)` that measures by itself, and prints.
MODULES: Final = {
    "calendar": "tests.bench.calendar_reads",
    "salesforce": "tests.bench.salesforce_reads",
    "fairness": "tests.bench.fairness",
    "late": "tests.bench.late",
    "ledger": "tests.bench.ledger",
}


def main(arguments: list[str]) -> int:
    """Run what is named; return 1 if a job was not answered exactly once."""
    if arguments and arguments[0] in MODULES:
        importlib.import_module(MODULES[arguments[0]]).main(arguments[1:])
        return 0
    given = _parse(arguments)
    if not PEERS.exists():
        print("the peers' environment is missing; run: make .venv-bench/.ready", file=sys.stderr)
        return 2
    contestants = [each for each in ALL if each.name in given.of]
    measures = list(QUICK) if given.quick else [MEASURES[name] for name in given.names or MEASURES]
    before = processes.load()
    processes.warn_if_loud(before)
    with tempfile.TemporaryDirectory() as folder:
        broker = PrivateRabbitMQ(Path(folder) / "rabbitmq")
        session = Session(Path(folder), broker, contestants, given.divisor)
        try:
            session.open()
            results = run_all(
                measures,
                session,
                given.rounds,
                lambda sample: report.write_line(given.out, sample, processes.load()),
            )
        finally:
            session.close()
            session.keep_logs()
    after = processes.load()
    print(report.conditions(before, after, versions()))
    print(report.table(measures, results))
    print(f"every sample: {given.out}")
    if given.svg:
        print(f"{len(svg.write_plots(given.svg, measures, results))} pictures in {given.svg}")
    return 1 if results.failures else 0


def versions() -> str:
    """Return the versions of the product and of its peers."""
    listed = (
        "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('aio-pika', 'faststream', "
        "'taskiq', 'taskiq-aio-pika', 'celery', 'dramatiq')), sep=', ')"
    )
    peers = subprocess.run([PEERS / "python", "-c", listed], capture_output=True, text=True, check=True)
    ours = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return f"ours {ours.stdout.strip() or 'unknown'}, {peers.stdout.strip()}"


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*MEASURES, []], help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="three measures, three contestants, 3 minutes")
    parser.add_argument("--of", nargs="*", help="contestants: " + ", ".join(each.name for each in ALL))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--divisor", type=int, default=1, help="divide all numbers of jobs by this")
    parser.add_argument("--out", type=Path, default=Path("bench.jsonl"), help="a file of JSON lines")
    parser.add_argument("--svg", type=Path, help="a folder for pictures")
    given = parser.parse_args(arguments)
    quick = (OURS, PLAIN, FASTSTREAM)
    given.of = given.of or [each.name for each in (quick if given.quick else ALL)]
    return given


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended
    sys.exit(main(sys.argv[1:]))
