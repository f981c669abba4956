"""The command line."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; if the extra that it needs is not installed, name it."""
    try:
        from worker.cli.app import main as run
    except ModuleNotFoundError as missing:
        sys.exit(f"connectors: {missing.name} is missing; install connectors-service[worker]")
    run()
