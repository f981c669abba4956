"""`worker`, `dev`, `demo` and `config`."""

import json
import sys
from typing import Annotated

import typer

from worker.cli.output import errors_reported, fail, print_json, print_table, run_async


def worker() -> None:
    """Run a worker until SIGTERM or Ctrl-C; exit 0 after a drain, 78 for a wrong setting."""
    from worker.main import main

    main()


def dev(
    keep_data: Annotated[bool, typer.Option(help="Keep broker and vault data for the next start.")] = False,
) -> None:
    """Start a private RabbitMQ, OpenBao, provider sandboxes and a worker; Ctrl-C stops everything."""
    from worker.dev.stack import run_dev

    with errors_reported():
        sys.exit(run_async(run_dev(keep_data=keep_data)))


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep everything running afterwards.")] = False,
) -> None:
    """Book an appointment on a private stack, kill the worker in the middle of the call, show the outcome."""
    from worker.dev.demo import run_demo
    from worker.dev.errors import InfrastructureError

    with errors_reported():
        try:
            sys.exit(run_async(run_demo(keep=keep)))
        except InfrastructureError as error:
            fail(str(error))


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the effective settings, secrets masked."""
    from worker.settings import load_settings, masked

    with errors_reported():
        shown = masked(load_settings())
    if as_json:
        print_json(shown)
    else:
        rows = [(name, _as_set(value)) for name, value in shown.items()]
        print_table(["setting", "value"], rows, empty="")


def _as_set(value: object) -> object:
    """Return a setting as one would write it in the environment."""
    if isinstance(value, list):
        return ",".join(value)
    return "" if value is None else json.dumps(value) if isinstance(value, dict) else value
