"""Several statements in one transaction of their own, written once for every driver."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class TableQuery(NamedTuple):
    """One statement; `$1`, `$2` … are its values."""

    text: str
    values: tuple[Any, ...] = ()


#: A generator that yields its steps, is sent the rows of each, and returns what came of it.
Script = Callable[[], Generator[TableQuery, Sequence[Sequence[Any]], T]]
