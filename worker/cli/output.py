"""The output of commands: JSON for programs, tables for people, one line for an error."""

import json
import logging
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import typer

T = TypeVar("T")

#: Exit codes beside 0 and 1.
EXIT_USAGE = 2
EXIT_NO_REPLY = 3


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; asyncio is imported here, because --help needs none."""
    import asyncio

    return asyncio.run(coroutine)


def print_json(value: Any) -> None:
    """Print a value as JSON for a program."""
    print(as_json(value, indent=2 if sys.stdout.isatty() else None))


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON with control characters escaped."""
    lines = json.dumps(value, indent=indent, ensure_ascii=False).split("\n")
    return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """Return the text with control characters escaped: a job's text is not ours to trust."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows as a table; off a terminal tab-separated, so that tools can cut them."""
    if not rows:
        print(empty)
        return
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(printable(str(cell)) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console().print(table)


def fail(message: str, code: int = 1) -> NoReturn:
    """Exit with one line on standard error."""
    print(f"connectors: {printable(message)}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def errors_reported() -> Iterator[None]:
    """Report an expected error as one line, with its exit code."""
    from loguru import logger

    from connectors.sdk.errors import ConnectorError
    from worker.broker import BrokerError
    from worker.credentials.source import VaultUnavailable
    from worker.credentials.vault_config import LoginRefused
    from worker.settings import EXIT_CONFIG, SettingError

    # A command prints its own messages: the log events of the parts below are for a worker's log. If the
    # broker refuses a connection, tasks of the client library fail and are logged, too.
    logger.remove()
    asyncio_log = logging.getLogger("asyncio")
    level = asyncio_log.level
    asyncio_log.setLevel(logging.CRITICAL)
    try:
        yield
    except (SettingError, LoginRefused) as error:
        fail(str(error), EXIT_CONFIG)
    except ConnectorError as error:
        fail(f"{error.code}: {error.message}")
    except VaultUnavailable as error:
        fail(f"the vault is unavailable: {error}")
    except BrokerError as error:
        fail(str(error))
    finally:
        asyncio_log.setLevel(level)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something irreversible; off a terminal, --yes is required."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{question} Give --yes to do it.", EXIT_USAGE)
    typer.confirm(question, abort=True)
