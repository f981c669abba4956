"""The demo's worker: the product with a lease of 2 seconds instead of 15.

A dead worker's job is taken over once its lease has expired, and a demo should not pause for 15 s.
"""

import sys

from worker.job import idempotency
from worker.ledger import store

# Before any other module of the worker imports them by name.
setattr(store, "LEASE_S", 2.0)  # noqa: B010  # a constant for everybody else
setattr(idempotency, "RENEW_S", 0.5)  # noqa: B010

if __name__ == "__main__":
    from worker.main import run_worker

    sys.exit(run_worker())
