"""Transactions on a SQLite file, as plain as can be: for tests of what is asked, not of how a database is reached."""

import sqlite3
from pathlib import Path
from typing import TypeVar

from worker.database.script import Script

T = TypeVar("T")


class SqliteTransactions:
    """Runs scripts on a file."""

    is_sqlite = True

    def __init__(self, file: Path) -> None:
        self.connection = sqlite3.connect(file, isolation_level=None)
        self.connection.execute("PRAGMA synchronous=OFF")  # no test cuts the power

    async def transact(self, script: Script[T]) -> T:
        """Run a script in a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        steps = script()
        try:
            step = next(steps)
            while True:
                step = steps.send(
                    self.connection.execute(step.text.replace("$", "?"), step.values).fetchall()
                )
        except StopIteration as ended:
            self.connection.execute("COMMIT")
            result: T = ended.value
            return result
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
