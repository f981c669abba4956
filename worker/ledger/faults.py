"""What a failed transaction says: of itself, of its connection, or of how the database is set up."""

import sqlite3
import time
from enum import Enum, auto
from typing import Final


class DatabaseFault(Enum):
    """How far a failure reaches."""

    #: Another transaction was in the way; the same again will do.
    RACE = auto()
    #: The connection, or the server at its end; another connection may do.
    CONNECTION = auto()
    #: This statement: the server answered, and the connection is good.
    STATEMENT = auto()
    #: The set-up: waiting does not fix it.
    SETTING = auto()


#: PostgreSQL's codes: serialization failure, deadlock.
_RACES: Final = frozenset({"40001", "40P01"})
#: A read-only server after a failover; statements that a pooler lost; no more connections for us.
_CONNECTION_STATES: Final = frozenset({"25006", "26000", "42P05", "53300"})
#: Codes that the driver gives itself: the connection is gone, or never was.
_BROKEN: Final = "08"
#: Classes of codes: connection exceptions, and an operator's intervention (shutdown, idle session ended).
_CONNECTION_CLASSES: Final = (_BROKEN, "57P")
#: Wrong password, no such role, database or permission.
_SETTINGS: Final = frozenset({"28P01", "28000", "3D000", "42501"})
_WRONG_FILES: Final = ("unable to open database file", "readonly database", "not a database")


class TransactionFailed(Exception):
    """A transaction failed.

    Args:
        error: what the driver raised.
        timeout_s: seconds that the transaction was given.
        may_be_done: it was on its way, or its commit was: without an answer, no one knows.
    """

    def __init__(self, error: BaseException, timeout_s: float, *, may_be_done: bool) -> None:
        self.fault = sort(error)
        self.reason = brief(error, timeout_s)
        super().__init__(self.reason)
        self.at = time.monotonic()
        #: The database is unavailable, as a probe found.
        self.is_outage = False
        state = _state(error)
        #: Another connection may do it at once: a server that answers with an error has done nothing.
        self.may_repeat = self.fault is DatabaseFault.RACE or (
            self.fault is DatabaseFault.CONNECTION
            and not isinstance(error, TimeoutError)
            and (not may_be_done or (bool(state) and not state.startswith(_BROKEN)))
        )


def sort(error: BaseException) -> DatabaseFault:
    """Return how far a failure reaches."""
    state = _state(error)
    if state in _RACES:
        return DatabaseFault.RACE
    if state in _SETTINGS or any(sign in str(error) for sign in _WRONG_FILES):
        return DatabaseFault.SETTING
    if isinstance(error, sqlite3.Error) or _is_value(error):
        # A lock that was not given, a full disk: another connection has no other file. Or a value that
        # no database takes.
        return DatabaseFault.STATEMENT
    # Without a code it comes from the driver: a connection that is closed, or broke.
    is_lost = not state or state in _CONNECTION_STATES or state.startswith(_CONNECTION_CLASSES)
    return DatabaseFault.CONNECTION if is_lost else DatabaseFault.STATEMENT


def brief(error: BaseException, timeout_s: float) -> str:
    """Return a database error without its statement, its parameters or its URL."""
    if isinstance(error, TimeoutError):
        return f"the database did not answer in {timeout_s:g} s"
    if _is_value(error):
        return f"the database takes no such value: {type(error).__name__}"  # its text may quote the value
    text = " ".join(str(error).split("DETAIL:")[0].split())
    return text[:200] or type(error).__name__


def _is_value(error: BaseException) -> bool:
    """Return whether a value could not be sent; a certificate that is refused is a ValueError, too."""
    return isinstance(error, ValueError | OverflowError) and not isinstance(error, OSError)


def _state(error: BaseException) -> str:
    return str(getattr(error, "sqlstate", None) or "")
