"""A ledger that answers otherwise than the model is found out: the check of the traces can fail."""

import pytest

from connectors.sdk.runtime.ledger import Claimed, Identity, InProgress, Undone
from tests.simulation.trace import LEASE_S, LedgerTrace, NotInModel

pytestmark = pytest.mark.simulation

KEY = Identity("default", "shop", "plain", "k")


class Time:
    """What the trace reads."""

    now = 0.0


def _claimed(
    fence: int, *, attempts: int = 0, in_flight: bool = False, undo_in_flight: bool = False
) -> Claimed:
    return Claimed(
        fence=fence,
        attempts=attempts,
        in_flight=in_flight,
        lands_within_s=0.0,
        undo_in_flight=undo_in_flight,
    )


@pytest.fixture
def trace() -> LedgerTrace:
    """A key that one worker has claimed, and whose call has left."""
    trace = LedgerTrace(lambda: Time.now)
    Time.now = 0.0
    trace.record("one", "claim", KEY, ("print",), {}, _claimed(1))
    trace.record("one", "begin", KEY, (1,), {}, True)
    return trace


@pytest.mark.parametrize(
    ("after_s", "name", "args", "said"),
    [
        (1.0, "claim", ("print",), _claimed(2, attempts=1, in_flight=True)),
        (1.0, "claim_undo", (), _claimed(2, attempts=1, in_flight=True)),
        (1.0, "look_up", ("print",), Undone()),
        (LEASE_S + 1, "begin", (1,), True),
        (LEASE_S + 1, "begin_undo", (1,), True),
        (LEASE_S + 1, "renew", (1,), True),
        (1.0, "complete", (1,), False),
        (LEASE_S + 1, "claim", ("print",), _claimed(1, attempts=1, in_flight=True)),
        (LEASE_S + 1, "claim", ("print",), _claimed(2, attempts=1)),
        (LEASE_S + 1, "claim", ("print",), _claimed(2, attempts=0, in_flight=True)),
        (LEASE_S + 1, "claim", ("print",), InProgress(0.0)),
    ],
)
def test_an_answer_that_the_model_has_not_is_refused(
    trace: LedgerTrace, after_s: float, name: str, args: tuple[object, ...], said: object
) -> None:
    Time.now = after_s

    with pytest.raises(NotInModel):
        trace.record("two", name, KEY, args, {}, said)


def test_an_older_fence_writes_nothing_and_an_undo_is_remembered(trace: LedgerTrace) -> None:
    Time.now = LEASE_S + 1
    trace.record("two", "claim_undo", KEY, (), {}, _claimed(2, attempts=1, in_flight=True))
    trace.record("two", "begin_undo", KEY, (2,), {}, True)
    trace.record("one", "complete", KEY, (1, "late"), {}, False)
    Time.now = 3 * LEASE_S

    with pytest.raises(NotInModel):
        trace.record("one", "release", KEY, (1,), {"in_flight": False}, True)
    with pytest.raises(NotInModel):
        trace.record("one", "claim_undo", KEY, (), {}, _claimed(3, attempts=1, in_flight=True))
