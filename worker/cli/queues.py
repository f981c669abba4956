"""`lanes list` and `lanes retire`: the queues, and the end of one."""

import asyncio
from typing import Annotated

import typer

from worker.cli.output import confirm, faults_told, print_json, print_table

app = typer.Typer(help="The queues of the connectors.", no_args_is_help=True)


@app.command("list")
def list_lanes(
    names: Annotated[
        list[str] | None, typer.Argument(help="Connectors beside those installed or enabled.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the lanes: consumers and waiting jobs."""
    from connectors.registry import installed_names
    from worker.admin.queues import look_at_lanes
    from worker.cli.calls import settings_for_clients

    with faults_told():
        settings = settings_for_clients()
        wanted = sorted({*installed_names(), *settings.enabled, *(names or [])})
        found = asyncio.run(look_at_lanes(settings, wanted))
    rows = [
        {
            "lane": lane.queue,
            "consumers": lane.consumers,
            "waiting": lane.waiting,
            "stranded": lane.is_stranded,
        }
        for lane in found
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["lane", "consumers", "waiting", "note"],
        [
            (row["lane"], row["consumers"], row["waiting"], "nobody runs it" if row["stranded"] else "")
            for row in rows
        ],
        empty="There is no lane: no worker has run on this broker.",
    )


@app.command()
def retire(
    name: Annotated[str, typer.Argument(help="The connector.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """End a lane: unbind it, answer what waits in it as CONNECTOR_NOT_FOUND, remove it."""
    from worker.admin.queues import retire_lane
    from worker.cli.calls import settings_for_clients

    confirm(f"Retire the lane of {name!r}? Its waiting jobs are answered CONNECTOR_NOT_FOUND.", yes=yes)
    with faults_told():
        moved = asyncio.run(retire_lane(settings_for_clients(), name))
    print(f"retired {name}: {moved} waiting jobs went to the unrouted queue")
