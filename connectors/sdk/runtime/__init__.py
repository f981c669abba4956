"""The core that runs a job: the worker gives it AMQP, Vault and SQL; the test kit gives it memory and a fake clock.

Private: connectors never import it. A job comes in as a `schemas.job.Job` with an `Attempt`, and an
`Outcome` comes out:

    executor          checks the job; READ runs at once, what writes goes through
    idempotency       one effect per key, with `undo` for taking it back and `lease` for holding the claim
    action_runner     calls the author's function in a task of its own, with its secret and its time
    infrastructure    waits for vault and ledger without using up an attempt
    retry             decides what a failed attempt leads to (pure)
    ledger            what is known of a key, and the protocol of the store that knows it
"""
