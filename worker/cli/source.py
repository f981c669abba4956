"""The input of a command: a file, or `-` for standard input."""

import sys
from pathlib import Path

from worker.cli.output import EXIT_USAGE, fail


def read_bytes(name: str) -> bytes:
    """Return the bytes of a file or of standard input."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        fail(f"{name}: {error.strerror}", EXIT_USAGE)


def read_text(name: str) -> str:
    """Return the UTF-8 text of a file or of standard input."""
    try:
        return read_bytes(name).decode()
    except UnicodeDecodeError as error:
        fail(f"{shown(name)} is not UTF-8: byte {error.start} cannot be read", EXIT_USAGE)


def shown(name: str) -> str:
    """Return the source's name for a message."""
    return "standard input" if name == "-" else name
