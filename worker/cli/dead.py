"""`dead list|show|replay|resolve|purge`: the dead-lettered jobs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import EXIT_USAGE, confirm, errors_reported, fail, print_json, print_table, run_async

if TYPE_CHECKING:
    from worker.admin.dead_letters import DeadLetterMessage

app = typer.Typer(help="List, show, replay, resolve or purge dead letters.", no_args_is_help=True)


@app.command("list")
def list_dead_letters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the dead letters, oldest first; personal data is masked."""
    from worker.admin.dead_letter_view import view_dead_letters
    from worker.admin.dead_letters import DeadLetterQueue
    from worker.cli.calls import settings_for_clients

    async def read() -> tuple[list[dict[str, Any]], dict[str, int]]:
        async with DeadLetterQueue(settings_for_clients()) as queue:
            return view_dead_letters(await queue.all()), await queue.count_poison()

    with errors_reported():
        found, poison = run_async(read())
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "reason", "attempts", "first seen", "job", "tenant", "error"],
        [
            (
                each["id"],
                each["reason"],
                each["attempts"],
                each["first_seen"],
                f"{each['connector']}.{each['action']}",
                each["tenant"],
                each["error"],
            )
            for each in found
        ],
        empty="There are no dead letters.",
    )
    for reason, count in poison.items():
        print(f"And in the poison queue (`dead purge --poison`): {count} messages {reason}.")


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    reveal: Annotated[bool, typer.Option("--reveal", help="Show personal data, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every dead letter of a job, its body included; personal data is masked."""
    from worker.admin.dead_letter_view import view_dead_letters
    from worker.admin.dead_letters import DeadLetterQueue
    from worker.cli.calls import settings_for_clients

    async def read() -> "list[DeadLetterMessage]":
        async with DeadLetterQueue(settings_for_clients()) as queue:
            return [each for each in await queue.all() if each.job_id == job_id]

    with errors_reported():
        found = run_async(read())
    if not found:
        fail(f"no dead letter has the id {job_id!r}; `connectors dead list` shows them")
    if reveal:
        shown = [{**dead_letter.summary(), "body": dead_letter.text()} for dead_letter in found]
    else:
        shown = view_dead_letters(found, with_body=True)
    if as_json:
        print_json(shown)
        return
    for each in shown:
        print_table(["field", "value"], list(each.items()), empty="")


@app.command()
def replay(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    reason: Annotated[str | None, typer.Option(help="Every dead letter with this code.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help="A new deadline (RFC 3339); the old one is dropped either way.")
    ] = None,
) -> None:
    """Send jobs back to their queues, ids and keys unchanged, attempts at zero."""
    from worker.admin.dead_letters import DeadLetterQueue
    from worker.cli.calls import settings_for_clients

    if not (job_ids or everything or reason):
        fail("give ids, --all or --reason CODE", EXIT_USAGE)
    _check_deadline(deadline)
    _check_reason(reason)

    async def send_back() -> "list[DeadLetterMessage]":
        async with DeadLetterQueue(settings_for_clients()) as queue:
            return await queue.replay(_chosen(job_ids, everything, reason), deadline=deadline)

    with errors_reported():
        _report(run_async(send_back()), "replayed", job_ids)


@app.command()
def resolve(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    happened: Annotated[
        bool | None, typer.Option("--happened/--not-happened", help="What you found at the provider.")
    ] = None,
) -> None:
    """Record in the ledger whether the effect of an OUTCOME_UNKNOWN happened; then replay the job."""
    from worker.admin.dead_letters import resolve_unknown
    from worker.cli.calls import settings_for_clients

    if happened is None:
        fail("give --happened or --not-happened", EXIT_USAGE)
    with errors_reported():
        if not run_async(resolve_unknown(settings_for_clients(), job_id, happened=happened)):
            fail(f"no dead letter {job_id!r} has an unknown outcome in this ledger")
    print(
        f"{job_id}: {'happened' if happened else 'not happened'}; `connectors dead replay {job_id}` sends its reply"
    )


@app.command()
def purge(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]")] = None,
    reason: Annotated[str | None, typer.Option(help="Only dead letters with this code.")] = None,
    poison: Annotated[bool, typer.Option("--poison", help="The poison queue instead.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for good: those given, or all."""
    from worker.admin.dead_letters import DeadLetterQueue
    from worker.cli.calls import settings_for_clients

    what = (
        "the poison queue" if poison else "these dead letters" if job_ids or reason else "every dead letter"
    )
    _check_reason(reason)
    confirm(f"Remove {what} for good?", yes=yes)

    async def remove_poison() -> int:
        async with DeadLetterQueue(settings_for_clients()) as queue:
            return await queue.purge_poison()

    async def remove() -> "list[DeadLetterMessage]":
        async with DeadLetterQueue(settings_for_clients()) as queue:
            return await queue.remove(_chosen(job_ids, not (job_ids or reason), reason))

    with errors_reported():
        if poison:
            print(f"{run_async(remove_poison())} removed")
        else:
            _report(run_async(remove()), "removed", job_ids)


def _chosen(job_ids: list[str] | None, everything: bool, reason: str | None) -> Any:
    wanted = set(job_ids or ())

    def fits(dead_letter: "DeadLetterMessage") -> bool:
        return (
            everything
            or dead_letter.job_id in wanted
            or (reason is not None and dead_letter.reason == reason)
        )

    return fits


def _report(done: "list[DeadLetterMessage]", what: str, job_ids: list[str] | None) -> None:
    """Print how many dead letters it was; fail if one that was named does not exist."""
    print(f"{len(done)} {what}")
    if absent := sorted(set(job_ids or ()) - {dead_letter.job_id for dead_letter in done}):
        named = ", ".join(map(repr, absent))
        fail(f"no dead letter has the id {named}; `connectors dead list` shows them")


def _check_reason(reason: str | None) -> None:
    from schemas.error import Code

    if reason is not None and reason not in Code.__members__:
        fail(f"--reason {reason!r} is not a code; the codes are {', '.join(Code)}", EXIT_USAGE)


def _check_deadline(deadline: str | None) -> None:
    from schemas.job import parse_instant

    if deadline is not None:
        try:
            parse_instant(deadline)
        except ValueError as error:
            fail(f"--deadline {deadline!r} {error}", EXIT_USAGE)
