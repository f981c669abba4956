"""`dead list|show|replay|resolve|purge`: the jobs that workers parked."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import EXIT_USAGE, confirm, fail, faults_told, print_json, print_table

if TYPE_CHECKING:
    from worker.admin.dead_letters import Letter

app = typer.Typer(help="The dead letters.", no_args_is_help=True)


@app.command("list")
def list_letters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the dead letters, oldest first; personal data is masked."""
    from worker.admin.dead_letter_view import view_letters
    from worker.admin.dead_letters import DeadLetters
    from worker.cli.calls import settings_for_clients

    async def look() -> tuple[list[dict[str, Any]], int]:
        async with DeadLetters(settings_for_clients()) as letters:
            return view_letters(await letters.all()), await letters.count_poison()

    with faults_told():
        found, poison = asyncio.run(look())
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
    if poison:
        print(
            f"And {poison} messages that no client can decode, in the poison queue (`dead purge --poison`)."
        )


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    reveal: Annotated[bool, typer.Option("--reveal", help="Show personal data, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every letter of a job, its body included; personal data is masked."""
    from worker.admin.dead_letter_view import view_letters
    from worker.admin.dead_letters import DeadLetters
    from worker.cli.calls import settings_for_clients

    async def look() -> "list[Letter]":
        async with DeadLetters(settings_for_clients()) as letters:
            return [letter for letter in await letters.all() if letter.job_id == job_id]

    with faults_told():
        found = asyncio.run(look())
    if not found:
        fail(f"no dead letter bears the id {job_id!r}")
    if reveal:
        shown = [{**letter.summary(), "body": letter.text()} for letter in found]
    else:
        shown = view_letters(found, with_body=True)
    if as_json:
        print_json(shown)
        return
    for each in shown:
        print_table(["field", "value"], list(each.items()), empty="")


@app.command()
def replay(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    all_letters: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
    reason: Annotated[str | None, typer.Option(help="Every letter with this code.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help="RFC 3339; the old deadline does not count either way.")
    ] = None,
) -> None:
    """Send jobs back to their queues, ids and keys unchanged, attempts at zero."""
    from worker.admin.dead_letters import DeadLetters
    from worker.cli.calls import settings_for_clients

    if not (job_ids or all_letters or reason):
        fail("name the ids, or say --all or --reason CODE", EXIT_USAGE)
    _check_deadline(deadline)
    _check_reason(reason)

    async def send_back() -> "list[Letter]":
        async with DeadLetters(settings_for_clients()) as letters:
            return await letters.replay(_chosen(job_ids, all_letters, reason), deadline=deadline)

    with faults_told():
        _report(asyncio.run(send_back()), "replayed", job_ids)


@app.command()
def resolve(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    happened: Annotated[
        bool | None, typer.Option("--happened/--not-happened", help="What you found at the provider.")
    ] = None,
) -> None:
    """Settle an OUTCOME_UNKNOWN in the ledger, by what you found at the provider; then replay it."""
    from worker.admin.dead_letters import resolve_unknown
    from worker.cli.calls import settings_for_clients

    if happened is None:
        fail("say --happened or --not-happened", EXIT_USAGE)
    with faults_told():
        if not asyncio.run(resolve_unknown(settings_for_clients(), job_id, happened=happened)):
            fail(f"no dead letter {job_id!r} has an unknown outcome in this ledger")
    print(
        f"{job_id}: {'happened' if happened else 'not happened'}; `connectors dead replay {job_id}` answers it"
    )


@app.command()
def purge(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]")] = None,
    reason: Annotated[str | None, typer.Option(help="Only letters with this code.")] = None,
    poison: Annotated[bool, typer.Option("--poison", help="The poison queue instead.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for good: those named, or all."""
    from worker.admin.dead_letters import DeadLetters
    from worker.cli.calls import settings_for_clients

    what = (
        "the poison queue" if poison else "these dead letters" if job_ids or reason else "every dead letter"
    )
    _check_reason(reason)
    confirm(f"Remove {what} for good?", yes=yes)

    async def remove_poison() -> int:
        async with DeadLetters(settings_for_clients()) as letters:
            return await letters.purge_poison()

    async def remove() -> "list[Letter]":
        async with DeadLetters(settings_for_clients()) as letters:
            return await letters.remove(_chosen(job_ids, not (job_ids or reason), reason))

    with faults_told():
        if poison:
            print(f"{asyncio.run(remove_poison())} removed")
        else:
            _report(asyncio.run(remove()), "removed", job_ids)


def _chosen(job_ids: list[str] | None, everything: bool, reason: str | None) -> Any:
    wanted = set(job_ids or ())

    def fits(letter: "Letter") -> bool:
        return everything or letter.job_id in wanted or (reason is not None and letter.reason == reason)

    return fits


def _report(done: "list[Letter]", what: str, job_ids: list[str] | None) -> None:
    """Say how many letters it was, and which of those named there are none."""
    print(f"{len(done)} {what}")
    if absent := sorted(set(job_ids or ()) - {letter.job_id for letter in done}):
        named = ", ".join(map(repr, absent))
        fail(f"no dead letter bears the id {named}; `connectors dead list` shows what there is")


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
