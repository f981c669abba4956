"""How long a caller waits: alone, and while the worker is half busy."""

import statistics
import time
from typing import Final

from tests.bench.caller import NotOnce, check_once
from tests.bench.contestants import ECHO, Contestant
from tests.bench.measure import Measure, Values
from tests.bench.session import Session

CALLS: Final = 300
#: Calls before those that are measured.
WARM_UP: Final = 20
#: Seconds of half load; and its rate in jobs per second if it was not drained before, and at most, because the
#: caller, the broker and the worker share this machine.
LOADED_S: Final = 5.0
HALF_LOAD: Final = 200.0
MOST_LOAD: Final = 1000.0


def idle(session: Session, contestant: Contestant, _case: None) -> Values:
    """Call one job after the other."""
    with session.caller(contestant) as caller, session.running(contestant, ECHO):
        for _ in range(WARM_UP):
            caller.call(ECHO)
        return _quantiles([caller.call(ECHO) for _ in range(session.jobs(CALLS))])


def half(session: Session, contestant: Contestant, _case: None) -> Values:
    """Publish at half of the rate that was drained, whether or not replies have come."""
    drained = session.drained.get(contestant.name)
    rate = min(drained / 2 if drained else HALF_LOAD, MOST_LOAD)
    sent_at: dict[str, float] = {}
    with session.caller(contestant) as caller, session.running(contestant, ECHO):
        for _ in range(WARM_UP):
            caller.call(ECHO)
        count, began = session.jobs(round(rate * LOADED_S)), time.perf_counter()
        while len(caller.answered) < count:
            due = min(count, int((time.perf_counter() - began) * rate))
            while len(sent_at) < due:
                now = time.perf_counter()
                sent_at[caller.publish(ECHO)[0]] = now
            caller.process(0.001)
            if time.perf_counter() - began > 10 * LOADED_S + 10:
                raise NotOnce(f"{count - len(caller.answered)} of {count} replies are missing")
        check_once(sent_at, (id for id, _ in caller.answered))
        took = [at - sent_at[id] for id, at in caller.answered]
    return {"load jobs/s": rate} | _quantiles(took)


def _quantiles(took_s: list[float]) -> Values:
    quantiles = statistics.quantiles(took_s, n=100)
    return {"p50 ms": quantiles[49] * 1000, "p99 ms": quantiles[98] * 1000}


IDLE: Final = Measure("idle", f"{CALLS} echo jobs, one at a time", idle)
HALF: Final = Measure("half", f"echo jobs at half of the drained rate, at most {MOST_LOAD:g}/s", half)
