"""Faults of the ledger's database, each on a real server: who hears of it, and how soon it is over."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from connectors.sdk.runtime.ledger import LedgerUnavailable
from tests.support.distance import distant
from tests.support.pgbouncer import pgbouncer
from tests.support.proxy import proxy
from worker.dev.ports import LOOPBACK
from worker.dev.postgres import PrivatePostgres
from worker.ledger.database import Database, database_of
from worker.ledger.policy import DEFAULT_POLICY, DatabasePolicy, TlsOf, no_tls
from worker.ledger.schema import LedgerFault
from worker.ledger.script import Ask, Do, Script, Steps
from worker.ledger.statements import (
    POSTGRESQL_NOW,
    SQLITE_NOW,
    LedgerStatements,
    Question,
    Statement,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def url(postgres: PrivatePostgres) -> str:
    return await postgres.create_database(f"test_{uuid4().hex}")


def made(url: str, tls: TlsOf = no_tls, policy: DatabasePolicy = DEFAULT_POLICY) -> Database:
    return database_of(url, tls, policy)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    database = made(url, **options)
    await database.start()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        yield connection
    finally:
        await connection.close()


def sql(database: Database) -> LedgerStatements:
    return LedgerStatements(SQLITE_NOW if database.is_sqlite else POSTGRESQL_NOW, lease_s=15.0, ttl_s=3600.0)


async def write(database: Database) -> None:
    """Claim a key of its own."""
    key = ("acme", "crm", "create", uuid4().hex)
    assert await database.ask(Question(sql(database).claim, (*key, "print", 1)))


async def write_many(database: Database, count: int) -> None:
    """Claim keys at once, as jobs of one worker do."""
    claim = sql(database).claim
    questions = [Question(claim, ("acme", "crm", "create", uuid4().hex, "print", 1)) for _ in range(count)]
    answers = await asyncio.gather(*(database.ask(question) for question in questions))
    assert all(answers)


def doing(*texts: str) -> Script[None]:
    def script() -> Steps[None]:
        yield Do(texts)

    return script


#: A row of its own, as text.
INSERT = (
    "INSERT INTO connectors_ledger (tenant, connector, action, key, fingerprint, state, fence, lease_until,"
    " in_flight, lands_at, attempts, expires_at) VALUES ('', '', '', '{}', '', '', 0, 0.0, FALSE, 0.0, 0, 0.0)"
)


def asking(text: str) -> Question:
    """Ask anything of PostgreSQL, among others."""
    key = "$1::text || $2::text || $3::text || $4::text"
    text = f"SELECT $5::int4 FROM (SELECT {key}, {text}) AS asked"
    return Question(Statement("", text, writes=True), ("", "", "", ""))


async def written(database: Database) -> int:
    def count() -> Steps[int]:
        rows = yield Ask("SELECT count(*) FROM connectors_ledger")
        return int(rows[0][0])

    return await database.transact(count)


async def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.02)


async def fill_pool(database: Database) -> None:
    """Have every connection open and idle."""
    hold = doing("select pg_sleep(0.1)")
    await asyncio.gather(*(database.transact(hold) for _ in range(8)))


async def end_sessions(url: str) -> None:
    async with administrator(url) as admin:
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )


async def test_a_wrong_statement_is_no_outage_for_others(url: str) -> None:
    async with opened(url) as database:
        started_at = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="division by zero"):
            await database.transact(doing("select 1/0"))

        assert time.monotonic() - started_at >= DatabasePolicy().pace_s, "a caller must not spin"
        assert database.unavailable_reason is None
        await write(database)


async def test_a_statement_that_hangs_is_no_outage_for_others(url: str) -> None:
    async with opened(url, policy=DatabasePolicy(statement_timeout_s=1.0)) as database:
        with pytest.raises(LedgerUnavailable, match="did not answer in 1 s"):
            await database.transact(doing("select pg_sleep(30)"))

        assert database.unavailable_reason is None


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else url) as database:
        yield database


async def test_a_value_that_no_database_takes_fails_no_neighbour(either: Database) -> None:
    claim = sql(either).claim
    bad = "\ud800" if either.is_sqlite else "\x00"

    answers = await asyncio.gather(
        *(either.ask(Question(claim, ("acme", "crm", "create", f"k{n}", "print", 1))) for n in range(20)),
        either.ask(Question(claim, ("acme", "crm", "create", bad, "print", 1))),
        return_exceptions=True,
    )

    assert isinstance(answers.pop(), LedgerUnavailable)
    assert [1] * 20 == [len(rows) for rows in answers if isinstance(rows, list)]
    assert 20 == await written(either)
    assert either.unavailable_reason is None


async def test_the_same_key_twice_in_a_group_is_claimed_once(either: Database) -> None:
    claim = Question(sql(either).claim, ("acme", "crm", "create", "k", "print", 1))

    answers = await asyncio.gather(*(either.ask(claim) for _ in range(10)))

    assert 1 == sum(len(rows) for rows in answers)


async def test_a_row_that_another_session_locks_holds_up_no_neighbour(url: str) -> None:
    async with (
        administrator(url) as admin,
        opened(url, policy=DatabasePolicy(statement_timeout_s=0.5)) as database,
    ):
        statements, keys = sql(database), [("acme", "crm", "create", f"k{n}") for n in range(20)]
        for key in keys:
            await database.ask(Question(statements.claim, (*key, "print", 1)))
        async with admin.transaction():
            await admin.execute("select 1 from connectors_ledger where key = 'k7' for update")
            started_at = time.monotonic()
            asked = [asyncio.create_task(database.ask(Question(statements.renew, (*key, 1)))) for key in keys]
            await asyncio.wait(asked[:7] + asked[8:])
            took_s = time.monotonic() - started_at

            assert all(task.result() for task in asked[:7] + asked[8:])
            assert took_s < 2.0, "once with it, and once without it"
            with pytest.raises(LedgerUnavailable, match=r"did not answer in 0\.5 s"):
                await asked[7]
        assert database.unavailable_reason is None


async def test_a_wait_for_our_own_connections_is_no_outage(url: str) -> None:
    async with opened(url, policy=DatabasePolicy(connections=2, statement_timeout_s=1.0)) as database:
        slow = [asking(f"{n}, pg_sleep(0.4)") for n in range(10)]  # a statement each, so a transaction each
        await asyncio.gather(*(database.ask(question) for question in slow))  # the last waits for 1.6 s

        assert database.unavailable_reason is None


async def test_a_wait_for_our_own_connections_ends_and_is_no_outage(url: str) -> None:
    async with opened(url, policy=DatabasePolicy(connections=2, pool_wait_s=0.1)) as database:
        slow = [asking(f"{n}, pg_sleep(0.4)") for n in range(4)]
        answers = await asyncio.gather(*(database.ask(each) for each in slow), return_exceptions=True)

        refused = [str(answer) for answer in answers if isinstance(answer, LedgerUnavailable)]
        assert ["every connection to the database was in use for 0.1 s"] * 2 == refused
        assert database.unavailable_reason is None


async def test_sessions_that_the_server_ended_cost_nobody_an_error(url: str) -> None:
    async with opened(url) as database:
        await fill_pool(database)
        await end_sessions(url)

        started_at = time.monotonic()
        await asyncio.gather(*(database.transact(doing(INSERT.format(n))) for n in range(8)))

        assert time.monotonic() - started_at < 1.0
        assert 8 == await written(database)
        assert database.unavailable_reason is None


async def test_a_session_ended_in_mid_transaction_is_repeated_once(url: str) -> None:
    tries = 0

    def cut() -> Steps[None]:
        nonlocal tries
        tries += 1
        yield Do((INSERT.format("a"),))
        if tries == 1:
            yield Do(("select pg_terminate_backend(pg_backend_pid())",))
        yield Do((INSERT.format("b"),))

    async with opened(url) as database:
        await database.transact(cut)

        assert (2, 2) == (tries, await written(database))


async def test_connections_that_a_balancer_dropped_cost_one_short_wait(url: str) -> None:
    parts = urlsplit(url)
    async with (
        proxy(parts.port or 0) as wire,
        opened(url.replace(str(parts.port), str(wire.port)), policy=DatabasePolicy(idle_s=0.0)) as database,
    ):
        await fill_pool(database)
        wire.forget()

        started_at = time.monotonic()
        await write_many(database, 8)

        assert time.monotonic() - started_at < 4.0
        assert database.unavailable_reason is None


async def test_a_database_far_away_is_slow_and_not_unavailable(url: str) -> None:
    parts = urlsplit(url)
    async with (
        distant(parts.port or 0, 0.2) as far,
        opened(url.replace(str(parts.port), str(far))) as database,
    ):
        started_at = time.monotonic()
        for _ in range(3):
            await write_many(database, 300)
        took_s = time.monotonic() - started_at

        assert database.unavailable_reason is None
        assert took_s < 6.0, "one by one, 900 would take six minutes over one connection"


async def test_answers_lost_after_the_commit_claim_nothing_twice(url: str) -> None:
    parts = urlsplit(url)
    keys = [("acme", "crm", "create", f"k{number}") for number in range(10)]
    async with (
        proxy(parts.port or 0) as wire,
        administrator(url) as admin,
        opened(url.replace(str(parts.port), str(wire.port))) as database,
    ):
        claim = sql(database).claim
        await database.ask(Question(claim, ("", "", "", "", "print", 1)))  # its types are known from here on
        wire.mute()
        asked = [asyncio.create_task(database.ask(Question(claim, (*key, "print", 1)))) for key in keys]
        async with asyncio.timeout(4):
            while 11 > await admin.fetchval("select count(*) from connectors_ledger"):
                await asyncio.sleep(0.02)
        early = [task.done() for task in asked]
        wire.reset()
        wire.pass_all()
        answers = await asyncio.gather(*asked, return_exceptions=True)

        assert not any(early)
        assert all(isinstance(answer, LedgerUnavailable) or not answer for answer in answers)
        assert [1] == [
            row["fence"] for row in await admin.fetch("select distinct fence from connectors_ledger")
        ]
        assert database.unavailable_reason is None


async def test_a_standby_is_left_at_once_and_the_probe_writes(tmp_path: Path) -> None:
    async with PrivatePostgres(tmp_path / "postgres") as server, opened(server.url) as database:
        await fill_pool(database)
        before = await sessions(server)

        # As after a failover behind one address: the sessions live on, on a server that writes no more.
        await make_read_only(server, "on")
        with pytest.raises(LedgerUnavailable, match="read-only"):
            await write(database)
        reason, reads = database.unavailable_reason, await database.wait_available(1.5)
        await make_read_only(server, "off")
        back = await database.wait_available(3.0)
        await fill_pool(database)

        assert "read-only" in (reason or "")
        assert (False, True) == (reads, back), "a standby answers reads"
        assert before.isdisjoint(await sessions(server)), "the pool is not kept"


async def make_read_only(server: PrivatePostgres, value: str) -> None:
    async with administrator(server.url) as admin:
        await admin.execute("set default_transaction_read_only = off")
        await admin.execute(f"alter system set default_transaction_read_only = {value}")
        await admin.execute("select pg_reload_conf()")


async def sessions(server: PrivatePostgres) -> set[int]:
    async with administrator(server.url) as admin:
        rows = await admin.fetch(
            "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
    return {row["pid"] for row in rows}


async def test_an_idle_worker_notices_a_ledger_that_takes_no_claims(url: str) -> None:
    async with administrator(url) as admin, opened(url, policy=DatabasePolicy(check_s=0.2)) as database:
        await admin.execute("alter table connectors_ledger rename to gone")
        await until(lambda: database.unavailable_reason is not None)
        reason = database.unavailable_reason
        await admin.execute("alter table gone rename to connectors_ledger")

        assert "connectors_ledger" in (reason or "")
        assert await database.wait_available(5.0)


async def test_probes_leave_nothing_behind(url: str) -> None:
    async with opened(url, policy=DatabasePolicy(check_s=0.01)) as database:
        proved_at = database._proved_at
        await until(lambda: database._proved_at > proved_at)

        assert 0 == await written(database)


ENDS_WHILE_LOCKED = """
import asyncio, sqlite3, sys
from worker.ledger.database import database_of
from worker.ledger.policy import DatabasePolicy, no_tls
from worker.ledger.statements import SQLITE_NOW, LedgerStatements, Question

async def main(path):
    database = database_of(f"sqlite:///{path}", no_tls, DatabasePolicy(statement_timeout_s=5.0))
    await database.start()
    backup = sqlite3.connect(path, isolation_level=None)
    backup.execute("begin immediate")
    claim = LedgerStatements(SQLITE_NOW, lease_s=15.0, ttl_s=3600.0).claim
    asked = [asyncio.create_task(database.ask(Question(claim, ("", "", "", str(n), "", 1)))) for n in range(5)]
    await asyncio.sleep(0.1)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await database.close()

asyncio.run(main(sys.argv[1]))
"""


def test_a_worker_ends_while_something_else_locks_sqlite(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_WHILE_LOCKED, str(tmp_path / "ledger.db")], check=False, timeout=20
    )

    assert 0 == ended.returncode


async def test_a_lock_on_sqlite_is_said_and_is_over_when_it_is(tmp_path: Path) -> None:
    async with opened(
        f"sqlite:///{tmp_path}/ledger.db", policy=DatabasePolicy(statement_timeout_s=0.5)
    ) as database:
        backup = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        backup.execute("begin immediate")
        with pytest.raises(LedgerUnavailable, match="database is locked"):
            await write(database)
        reason = database.unavailable_reason
        backup.execute("rollback")

        assert "database is locked" == reason
        assert await database.wait_available(5.0)
        await write(database)
        backup.close()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_a_stricter_default_isolation_makes_no_claim_fail(url: str, isolation: str) -> None:
    async with administrator(url) as admin:
        await admin.execute(
            f"alter database \"{urlsplit(url).path[1:]}\" set default_transaction_isolation = '{isolation}'"
        )

    tries = 0

    def claim() -> Steps[None]:
        nonlocal tries
        tries += 1
        yield Do(("update connectors_ledger set fence = fence + 1",))

    async with opened(url) as one, opened(url) as other:
        await one.transact(doing(INSERT.format("k")))
        await asyncio.gather(*(database.transact(claim) for _ in range(50) for database in (one, other)))

        assert 100 == tries, "none was repeated"
        async with administrator(url) as admin:
            assert 100 == await admin.fetchval("select fence from connectors_ledger")

        statements, key = sql(one), ("", "", "", "again")
        await one.ask(Question(statements.claim, (*key, "print", 1)))
        begin = Question(statements.begin, (*key, 1, 1.0))
        held = await asyncio.gather(*(database.ask(begin) for _ in range(50) for database in (one, other)))

        assert all(held)
        async with administrator(url) as admin:
            assert 100 == await admin.fetchval("select attempts from connectors_ledger where key = 'again'")


async def test_a_serialization_failure_is_repeated(url: str) -> None:
    tries = 0

    def lose() -> Steps[None]:
        nonlocal tries
        tries += 1
        if tries < 4:
            yield Do(("do $$ begin raise exception using errcode = '40001'; end $$",))
        yield Do(("select 1",))

    async with opened(url) as database:
        await database.transact(lose)

    assert 4 == tries


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_two_workers_share_a_pgbouncer(
    url: str, tmp_path: Path, mode: Literal["transaction", "session"]
) -> None:
    servers = 4 if mode == "transaction" else 20  # in session mode a connection holds a server
    async with (
        pgbouncer(url, tmp_path / "pooler", mode, servers=servers) as pooled,
        opened(pooled) as one,
        opened(pooled) as other,
    ):
        for _ in range(20):  # groups of every size, over any of the servers
            await asyncio.gather(*(write_many(database, 10) for database in (one, other)))

        assert 400 == await written(one)
        assert (None, None) == (one.unavailable_reason, other.unavailable_reason)
        assert one.id == other.id


async def test_a_ca_file_that_is_replaced_counts_from_the_next_connection(url: str) -> None:
    asked: list[int] = []

    def tls() -> bool:
        asked.append(len(asked))
        return False

    async with opened(url, tls=tls) as database:
        before = len(asked)
        await fill_pool(database)
        await end_sessions(url)
        await fill_pool(database)

    assert len(asked) >= before + 8 + 7, "TLS is chosen anew for each connection"


async def test_a_refused_password_at_start_is_a_setting_and_names_it(url: str) -> None:
    wrong = url.replace(str(urlsplit(url).password), "wrong")

    with pytest.raises(LedgerFault, match="CONNECTORS_DATABASE_URL: password") as caught:
        await made(wrong).start()

    assert LOOPBACK not in str(caught.value)


async def test_a_refused_login_becomes_rare_and_ends_when_it_is_accepted(tmp_path: Path) -> None:
    logins = 0

    def tls() -> bool:
        nonlocal logins
        logins += 1
        return False

    async with PrivatePostgres(tmp_path / "postgres") as server, administrator(server.url) as admin:
        await admin.execute("create role other login superuser password 'first'")
        url = f"postgresql://other:first@{LOOPBACK}:{server.port}/postgres"
        async with opened(url, tls=tls, policy=DatabasePolicy(probe_s=0.05)) as database:
            await admin.execute("alter role other password 'second'")
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'other'"
            )
            with pytest.raises(LedgerUnavailable, match="password"):
                await write(database)
            before, waited = logins, await database.wait_available(2.0)
            refused = logins - before
            await admin.execute("alter role other password 'first'")

            assert (False, True) == (waited, await database.wait_available(10.0))
            assert refused <= 7, "doubled from 0.05 s"
