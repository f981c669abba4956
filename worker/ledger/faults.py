"""What a failed transaction says: of itself, of its connection, or of how the database is set up."""

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import DBAPIError


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
#: Classes of codes: connection exceptions, and an operator's intervention (shutdown, idle session ended).
_CONNECTION_CLASSES: Final = ("08", "57P")
#: Wrong password, no such role, database or permission.
_SETTINGS: Final = frozenset({"28P01", "28000", "3D000", "42501"})
_WRONG_FILES: Final = ("unable to open database file", "readonly database", "not a database")


def sort(error: BaseException) -> DatabaseFault:
    """Return how far a failure reaches."""
    if not isinstance(error, DBAPIError):
        return DatabaseFault.CONNECTION
    state = _state(error)
    if state in _RACES:
        return DatabaseFault.RACE
    if state in _SETTINGS or any(sign in str(error.orig) for sign in _WRONG_FILES):
        return DatabaseFault.SETTING
    if isinstance(error.orig, sqlite3.Error):
        # A lock that was not given, a full disk: another connection has no other file.
        return DatabaseFault.STATEMENT
    is_lost = error.connection_invalidated or state in _CONNECTION_STATES
    # Without a code it comes from the driver: a connection that is closed, or broke.
    is_lost = is_lost or not state or state.startswith(_CONNECTION_CLASSES)
    return DatabaseFault.CONNECTION if is_lost else DatabaseFault.STATEMENT


def brief(error: BaseException, timeout_s: float) -> str:
    """Return a database error without its statement, its parameters or its URL."""
    if isinstance(error, TimeoutError):
        return f"the database did not answer in {timeout_s:g} s"
    original = getattr(error, "orig", None) or error
    text = " ".join(str(original).split("[SQL")[0].split("DETAIL:")[0].split())
    text = text.removeprefix("<class 'asyncpg.exceptions.").replace("'>: ", ": ", 1)
    return text[:200] or type(original).__name__


def _state(error: DBAPIError) -> str:
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return str(state or "")
