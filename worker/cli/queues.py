"""`queues list` and `queues retire`."""

from typing import Annotated

import typer

from worker.cli.output import confirm, errors_reported, print_json, print_table, run_async

app = typer.Typer(help="List the connectors' queues, or retire one.", no_args_is_help=True)


@app.command("list")
def list_queues(
    names: Annotated[
        list[str] | None, typer.Argument(help="More connectors than those installed or enabled.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the queues with their consumers and waiting jobs."""
    from connectors.registry import installed_names
    from worker.admin.queues import inspect_queues
    from worker.cli.calls import settings_for_clients

    with errors_reported():
        settings = settings_for_clients()
        wanted = sorted({*installed_names(), *settings.enabled, *(names or [])})
        found = run_async(inspect_queues(settings, wanted))
    rows = [
        {
            "queue": queue.queue,
            "consumers": queue.consumers,
            "waiting": queue.waiting,
            "stranded": queue.is_stranded,
        }
        for queue in found
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["queue", "consumers", "waiting", "note"],
        [
            (
                row["queue"],
                row["consumers"],
                row["waiting"],
                "no worker consumes it" if row["stranded"] else "",
            )
            for row in rows
        ],
        empty="There is no queue: no worker has run on this broker yet.",
    )


@app.command()
def retire(
    name: Annotated[str, typer.Argument(help="The connector.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Retire a queue: unbind it, answer its waiting jobs CONNECTOR_NOT_FOUND, remove it."""
    from worker.admin.queues import retire_queue
    from worker.cli.calls import settings_for_clients

    confirm(f"Retire the queue of {name!r}? Its waiting jobs are answered CONNECTOR_NOT_FOUND.", yes=yes)
    with errors_reported():
        moved = run_async(retire_queue(settings_for_clients(), name))
    print(f"retired {name}: {moved} waiting jobs were moved to the unrouted queue")
