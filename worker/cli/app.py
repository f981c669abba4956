"""The commands, by name; each imports what it needs when it runs, so that --help is instant."""

import sys
from typing import Annotated

import typer

from worker.cli import calls, catalogue, check, credentials, dead, export, new, queues, run

app = typer.Typer(
    name="connectors",
    help="Run connector actions from RabbitMQ jobs, exactly one effect per idempotency key.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help as plain text: rich takes half of its time
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"connectors-service {version('connectors-service')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command("worker")(run.worker)
app.command("dev")(run.dev)
app.command("demo")(run.demo)
app.command("call")(calls.call)
app.command("publish")(calls.publish)
app.command("list")(catalogue.list_connectors)
app.command("describe")(catalogue.describe)
app.command("new")(new.new)
app.command("check")(check.check)
app.command("config")(run.config)
app.add_typer(queues.app, name="queues")
app.add_typer(dead.app, name="dead")
app.add_typer(credentials.app, name="credentials")
app.add_typer(export.app, name="export")


def main() -> None:
    """Run the command line; an error is one line on standard error."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
