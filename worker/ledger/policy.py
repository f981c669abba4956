"""The numbers of the ledger's database: how long it is waited for, and how often it is looked at."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: The TLS of a connection about to be made: a context, None for the driver's own choice, False for none.
TlsOf = Callable[[], ssl.SSLContext | bool | None]


def no_tls() -> None:
    """Leave encryption to the driver."""


@dataclass(frozen=True, slots=True)
class DatabasePolicy:
    """How long a transaction and its connection may take, and when the database is probed."""

    #: Seconds for one transaction, and for a connection.
    statement_timeout_s: float = 5.0
    #: Seconds between probes of a database that is unavailable, and between probes of one that is not:
    #: `/readyz` must report a failover within 10 s though no job asks.
    probe_s: float = 1.0
    check_s: float = 3.0
    #: Seconds between probes that are refused for a setting, at most: each may be a refused login.
    max_refused_s: float = 30.0
    #: Transactions of one worker that PostgreSQL runs at once; a connection more for the probe.
    connections: int = 8
    #: Seconds that a question waits while every connection is in use.
    pool_wait_s: float = 30.0
    #: Seconds before the caller of a statement that failed by itself may ask again; the database goes on for others.
    pace_s: float = 1.0
    #: Tries of a transaction that others are in the way of.
    max_races: int = 5
    #: Seconds of rest after which a connection is asked whether it lives before it is used.
    idle_s: float = 1.0


DEFAULT_POLICY: Final = DatabasePolicy()
