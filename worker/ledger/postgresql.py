"""The ledger in PostgreSQL: a transaction is one message there and one back, through a pooler, too."""

import asyncio
from operator import itemgetter
from typing import Final, TypeVar

import asyncpg

from worker.database_url import DatabaseUrl
from worker.ledger.connections import ERRORS, Connections
from worker.ledger.faults import TransactionFailed
from worker.ledger.policy import DatabasePolicy, TlsOf
from worker.ledger.script import Ask, Script
from worker.ledger.statements import Question, Rows

T = TypeVar("T")

_KEY: Final = itemgetter(0, 1, 2, 3)


class Postgresql:
    """A database server. Created and closed by `Database`, which bounds how many transactions run."""

    is_mixed: Final = False

    def __init__(self, url: DatabaseUrl, tls: TlsOf, policy: DatabasePolicy) -> None:
        self._timeout_s = policy.statement_timeout_s
        self._connections = Connections(url, tls, policy)

    async def execute(self, questions: list[Question]) -> list[Rows]:
        """Answer questions with the same statement in one transaction: all of them, or none.

        What is sent between two Syncs is one implicit transaction: nothing is asked before, and no commit after.
        https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING

        Raises:
            TransactionFailed: it was rolled back, its connection broke, or it took too long.
        """
        statement = questions[0].statement
        values = [(*question.values, number) for number, question in enumerate(questions)]
        values.sort(key=_KEY)  # every transaction locks rows in one order: none waits for another in a circle
        may_be_done = False
        try:
            async with self._connections.link() as link, asyncio.timeout(self._timeout_s):
                if link.is_strict:
                    async with link.connection.transaction(isolation="read_committed"):
                        rows = await (await link.prepare(statement)).fetchmany(values)
                        may_be_done = True
                else:
                    many = await link.prepare(statement)
                    may_be_done = True
                    rows = await many.fetchmany(values)
        except ERRORS as error:
            raise TransactionFailed(error, self._timeout_s, may_be_done=may_be_done) from None
        answers: list[Rows] = [[] for _ in questions]
        for number, *row in rows:
            answers[number].append(tuple(row))
        return answers

    async def transact(self, script: Script[T]) -> T:
        """Run a script in a transaction of its own.

        Raises:
            TransactionFailed: as `execute`.
        """
        is_committing = False
        try:
            async with (
                self._connections.link() as link,
                asyncio.timeout(self._timeout_s),
                link.connection.transaction(isolation="read_committed"),
            ):
                result = await _run(link.connection, script)
                is_committing = True
        except ERRORS as error:
            raise TransactionFailed(error, self._timeout_s, may_be_done=is_committing) from None
        return result

    def drop_idle(self) -> None:
        """End every idle connection: what broke one of them broke the others, too."""
        self._connections.drop_idle()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()


async def _run(connection: "asyncpg.Connection[asyncpg.Record]", script: Script[T]) -> T:
    steps = script()
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                step = steps.send(await connection.fetch(step.text))
            else:  # one message, and one back
                await connection.execute(";\n".join(step.texts))
                step = steps.send(())
    except StopIteration as ended:
        result: T = ended.value
        return result
