"""The command line."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; if the extra that it needs is not installed, name it.

    A worker lives for weeks, so that it starts without the parser of the other commands, and keeps its memory free
    of it.
    """
    try:
        if sys.argv[1:] == ["worker"]:
            from worker.main import main as run
        else:
            from worker.cli.app import main as run
    except ModuleNotFoundError as missing:
        sys.exit(f"connectors: {missing.name} is missing; install connectors-service[worker]")
    run()
