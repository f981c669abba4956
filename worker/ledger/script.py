"""Several statements in one transaction of their own, written once for every driver."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Do(NamedTuple):
    """Statements whose rows no one needs; they are sent together."""

    texts: tuple[str, ...]


class Ask(NamedTuple):
    """A statement whose rows are the answer."""

    text: str


#: What a script does next, the rows that it is sent, and what it returns.
Steps = Generator[Do | Ask, Sequence[Sequence[Any]], T]
Script = Callable[[], Steps[T]]
