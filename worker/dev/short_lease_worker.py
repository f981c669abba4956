"""The demo's worker: the product, but for a lease of 2 seconds instead of 15.

A dead worker's job is taken over once its lease has run out, and no one watches a demo for that long.
"""

import sys

from connectors.sdk.runtime.lease import LeasePolicy
from worker.main import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(lease_policy=LeasePolicy(lease_s=2.0, renew_s=0.5)))
