"""The idempotency store: which key is claimed by whom, and what came of it."""
