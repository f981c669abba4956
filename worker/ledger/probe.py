"""The question that tells whether a job can be claimed: a row is written, as a claim writes one."""

from uuid import uuid4

from worker.ledger.script import Do, Steps


def probe() -> Steps[None]:
    """Insert, update and delete a row: reads alone succeed on a standby that writes no more.

    The row has no connector, so it is in no one's way, and a time in the past, so a sweep removes it
    if this ends halfway.
    """
    key = f"probe-{uuid4().hex}"
    mine = f"tenant = '' AND connector = '' AND action = '' AND key = '{key}'"
    yield Do(
        (
            "INSERT INTO connectors_ledger (tenant, connector, action, key, fingerprint, state, fence,"
            " lease_until, in_flight, lands_at, attempts, expires_at)"
            f" VALUES ('', '', '', '{key}', '', '', 0, 0.0, FALSE, 0.0, 0, 0.0)",
            f"UPDATE connectors_ledger SET state = 'probe' WHERE {mine}",
            f"DELETE FROM connectors_ledger WHERE {mine}",
        )
    )
