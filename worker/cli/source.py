"""What a command is given to read: a file, or `-` for standard input."""

import sys
from pathlib import Path

from worker.cli.output import EXIT_USAGE, fail


def read_bytes(name: str) -> bytes:
    """Read a file, or standard input."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        fail(f"{name}: {error.strerror}", EXIT_USAGE)


def read_text(name: str) -> str:
    """Read a file, or standard input, of UTF-8."""
    try:
        return read_bytes(name).decode()
    except UnicodeDecodeError as error:
        fail(f"{shown(name)} is not UTF-8: byte {error.start} cannot be read", EXIT_USAGE)


def shown(name: str) -> str:
    """Name the source for a person."""
    return "standard input" if name == "-" else name
