"""`worker`, `dev`, `demo`, `config`: what runs, and with which settings."""

import asyncio
import json
import sys
from typing import Annotated

import typer

from worker.cli.output import fail, faults_told, print_json, print_table


def worker() -> None:
    """Run a worker until SIGTERM or Ctrl-C; exit 0 after a drain, 78 for a wrong setting."""
    from worker.main import run_worker

    sys.exit(run_worker())


def dev(
    keep_data: Annotated[bool, typer.Option(help="Keep broker and vault data for the next start.")] = False,
) -> None:
    """Start a private RabbitMQ, OpenBao, the providers' sandboxes and a worker on them; Ctrl-C stops all."""
    from worker.dev.stack import run_dev

    with faults_told():
        sys.exit(asyncio.run(run_dev(keep_data=keep_data)))


def demo(keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards.")] = False) -> None:
    """Book an appointment on a private stack, kill the worker in the middle, and show what happened."""
    from worker.dev.demo import run_demo
    from worker.dev.errors import InfrastructureError

    with faults_told():
        try:
            sys.exit(asyncio.run(run_demo(keep=keep)))
        except InfrastructureError as error:
            fail(str(error))


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the settings in force, secrets masked."""
    from worker.settings import load_settings, masked

    with faults_told():
        shown = masked(load_settings())
    if as_json:
        print_json(shown)
    else:
        rows = [(name, _as_set(value)) for name, value in shown.items()]
        print_table(["setting", "value"], rows, empty="")


def _as_set(value: object) -> object:
    """Write a setting as one would set it."""
    if isinstance(value, list):
        return ",".join(value)
    return "" if value is None else json.dumps(value) if isinstance(value, dict) else value
