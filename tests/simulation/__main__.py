"""`python -m tests.simulation`: run schedules, replay one, or see whether seeded faults are found."""

import argparse
import sys
import time
from typing import Final

from tests.simulation.campaign import Findings, broker_tokens_of, run_all, tokens_of
from tests.simulation.exhaust import exhaust
from tests.simulation.job_mutants import JOB_MUTANTS
from tests.simulation.model import check_model
from tests.simulation.mutants import MOST_SCHEDULES, MUTANTS, run_mutants
from tests.simulation.schedules import replay

#: Schedules unless it is said otherwise.
SCHEDULES: Final = 300
#: Schedules for each mutant of the second half, at most.
MOST_BROKER_SCHEDULES: Final = 1000


def main() -> int:
    """Do what the arguments say; 1 if something broke."""
    arguments = _read_arguments()
    if arguments.replay:
        return max(map(_replay, arguments.replay))
    if arguments.mutants:
        mutants, most = (
            (JOB_MUTANTS, MOST_BROKER_SCHEDULES) if arguments.broker else (MUTANTS, MOST_SCHEDULES)
        )
        return run_mutants(arguments.schedules or most, arguments.seed, mutants)
    if arguments.model:
        return check_model()
    begun = time.monotonic()
    if arguments.exhaust is not None:
        findings = exhaust(arguments.exhaust)
    elif arguments.broker:
        findings = run_all(broker_tokens_of(arguments.seed, arguments.schedules or SCHEDULES))
    else:
        findings = run_all(tokens_of(arguments.seed, arguments.schedules or SCHEDULES))
    return _report(findings, time.monotonic() - begun, is_small=arguments.exhaust is not None)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, help="how many to run (mutants: for each, at most)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", action="store_true", help="processor and publishers on a broker, too")
    parser.add_argument("--replay", nargs="+", metavar="TOKEN", help="print the journals of these schedules")
    parser.add_argument("--exhaust", type=int, metavar="K", help="all schedules with at most K deviations")
    parser.add_argument("--mutants", action="store_true", help="break the core in turn, and see it found")
    parser.add_argument("--model", action="store_true", help="check the protocol's model to the end")
    return parser.parse_args()


def _replay(token: str) -> int:
    journal, broken = replay(token)
    print(f"{token}: {journal}")
    print(f"{token}: {broken or 'every invariant holds'}")
    return int(broken is not None)


def _report(findings: Findings, seconds: float, *, is_small: bool) -> int:
    for token, what in findings.broken.items():
        print(f"{token}  {what}")
    print(findings.table())
    print(f"{'seconds':<36}{seconds:>12.1f}")
    if findings.missing and not is_small:
        print(f"never happened: {', '.join(findings.missing)}")
        return 1
    return int(bool(findings.broken))


if __name__ == "__main__":
    sys.exit(main())
