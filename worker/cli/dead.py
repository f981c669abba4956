"""`dead list|show|replay|purge`: the jobs that workers parked."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import EXIT_USAGE, confirm, fail, faults_told, print_json, print_table

if TYPE_CHECKING:
    from worker.dead_letters import Letter

app = typer.Typer(help="The dead letters.", no_args_is_help=True)


@app.command("list")
def list_letters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the dead letters, oldest first; personal data is masked."""
    from worker.cli.calls import settings_for_clients
    from worker.dead_letters import DeadLetters
    from worker.letter_view import view_letters

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
) -> None:
    """Show every letter of a job, its body included; personal data is masked."""
    from worker.cli.calls import settings_for_clients
    from worker.dead_letters import DeadLetters
    from worker.letter_view import view_letters

    async def look() -> "list[Letter]":
        async with DeadLetters(settings_for_clients()) as letters:
            return [letter for letter in await letters.all() if letter.job_id == job_id]

    with faults_told():
        found = asyncio.run(look())
    if not found:
        fail(f"no dead letter bears the id {job_id!r}")
    if reveal:
        print_json([{**letter.summary(), "body": letter.text()} for letter in found])
    else:
        print_json(view_letters(found, with_body=True))


@app.command()
def replay(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    all_letters: Annotated[bool, typer.Option("--all", help="Every letter.")] = False,
    reason: Annotated[str | None, typer.Option(help="Every letter with this code.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help="RFC 3339; the old deadline does not count either way.")
    ] = None,
) -> None:
    """Send jobs back to their lanes, ids and keys unchanged, attempts at zero."""
    from worker.cli.calls import settings_for_clients
    from worker.dead_letters import DeadLetters

    if not (job_ids or all_letters or reason):
        fail("name the ids, or say --all or --reason CODE", EXIT_USAGE)
    _check_deadline(deadline)

    async def send_back() -> int:
        async with DeadLetters(settings_for_clients()) as letters:
            return await letters.replay(_chosen(job_ids, all_letters, reason), deadline=deadline)

    with faults_told():
        count = asyncio.run(send_back())
    if count == 0:
        fail("no dead letter fits; `connectors dead list` shows what there is")
    print(f"{count} replayed")


@app.command()
def resolve(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    happened: Annotated[
        bool | None, typer.Option("--happened/--not-happened", help="What you found at the provider.")
    ] = None,
) -> None:
    """Settle an OUTCOME_UNKNOWN in the ledger, by what you found at the provider; then replay it."""
    from worker.cli.calls import settings_for_clients
    from worker.dead_letters import resolve_unknown

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
    from worker.cli.calls import settings_for_clients
    from worker.dead_letters import DeadLetters

    what = (
        "the poison queue" if poison else "these dead letters" if job_ids or reason else "every dead letter"
    )
    confirm(f"Remove {what} for good?", yes=yes)

    async def remove() -> int:
        async with DeadLetters(settings_for_clients()) as letters:
            if poison:
                return await letters.purge_poison()
            return await letters.remove(_chosen(job_ids, not (job_ids or reason), reason))

    with faults_told():
        print(f"{asyncio.run(remove())} removed")


def _chosen(job_ids: list[str] | None, everything: bool, reason: str | None) -> Any:
    wanted = set(job_ids or ())

    def fits(letter: "Letter") -> bool:
        return everything or letter.job_id in wanted or (reason is not None and letter.reason == reason)

    return fits


def _check_deadline(deadline: str | None) -> None:
    from schemas.job import parse_instant

    if deadline is not None:
        try:
            parse_instant(deadline)
        except ValueError as error:
            fail(f"--deadline {deadline!r} {error}", EXIT_USAGE)
