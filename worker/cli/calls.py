"""`call` and `publish`: jobs from the command line."""

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import (
    EXIT_NO_REPLY,
    EXIT_USAGE,
    as_json,
    errors_reported,
    fail,
    print_json,
    printable,
    run_async,
)
from worker.cli.source import read_bytes, read_text

if TYPE_CHECKING:
    from schemas.job import Job
    from schemas.result import Result
    from worker.client import ConnectorsClient
    from worker.settings import Settings

#: Jobs of a file that wait for their confirms at once.
IN_FLIGHT = 200
#: Seconds that a call may wait: a day. Longer work is published, and its reply read from a queue that stays.
LONGEST_CALL_S = 86_400.0


def call(
    connector: str,
    action: str,
    params: Annotated[str, typer.Option(help="JSON, @FILE, or - for standard input.")] = "{}",
    param: Annotated[
        list[str] | None,
        typer.Option(help="One parameter, NAME=VALUE; a VALUE that is JSON counts as JSON. Repeatable."),
    ] = None,
    tenant: str = "default",
    credential: str = "default",
    key: Annotated[str | None, typer.Option(help="Idempotency key; a new one each time by default.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds; the job's deadline, too.")] = 30.0,
    mode: Annotated[str, typer.Option(help="run, undo or validate.")] = "run",
    locale: Annotated[str, typer.Option(help="Language of what an agent may say.")] = "en",
    progress: Annotated[bool, typer.Option(help="Show progress messages.")] = False,
    json_wanted: Annotated[bool, typer.Option("--json", help="Print the reply as it came.")] = False,
) -> None:
    """Publish one job, wait for its reply, print it.

    Exit code 0 if it succeeded, 1 if it failed, 2 for wrong usage, 3 without a reply in time.
    """
    if not 0 < timeout <= LONGEST_CALL_S:
        fail(f"--timeout {timeout:g} must be more than 0, and {LONGEST_CALL_S:g} s at most", EXIT_USAGE)
    job = _job(
        {
            "connector": connector,
            "action": action,
            "params": _params(params, param or []),
            "tenant": tenant,
            "credential": credential,
            "mode": mode,
            "locale": locale,
            "progress": progress,
            **({} if key is None else {"idempotency_key": key}),
        },
        timeout,
    )
    with errors_reported():
        result = run_async(_call(job, timeout))
    if json_wanted:
        print_json(result.model_dump(mode="json", warnings=False))  # a newer worker's code is no Code
    else:
        print_result(result)
    raise typer.Exit(0 if result.status == "succeeded" else 1)


def print_result(result: "Result") -> None:
    """Print a reply for a person."""
    attempts = f", {result.attempts} attempts" if result.attempts > 1 else ""
    again = ", replayed" if result.replayed else ""
    print(f"{result.status} in {result.duration_ms:g} ms{attempts}{again}")
    if result.error is None:
        print(as_json(result.data, indent=2))
        return
    print(printable(f"{result.error.code}: {result.error.message}"))
    for detail in result.error.details:
        if str(detail) not in result.error.message:
            print(printable(f"  {detail}"))
    if result.error.data is not None:
        print(as_json(result.error.data, indent=2))
    print(f"An agent may say: “{result.error.say}”")


def publish(
    file: Annotated[str, typer.Argument(help="A file of one job a line, or - for standard input.")],
    bulk: Annotated[bool, typer.Option(help="Work that no caller waits for: the bulk queues.")] = False,
) -> None:
    """Publish many jobs, each confirmed by the broker.

    Validates the whole file first; sends nothing if a line is invalid.
    """
    jobs = _read_jobs(file)
    with errors_reported():
        run_async(_publish(jobs, bulk=bulk))
    print(f"{len(jobs)} job{'' if len(jobs) == 1 else 's'} published")


async def _call(job: "Job", timeout_s: float) -> "Result":
    from worker.client import NoReply, UnreadableReply

    settings = settings_for_clients()
    async with _client(settings) as client:
        _fail_unless_connected(client)
        try:
            return await client.send(
                job, timeout_s=timeout_s, on_progress=_show_progress if job.progress else None
            )
        except (NoReply, UnreadableReply) as error:
            fail(str(error), EXIT_NO_REPLY)


def _show_progress(progress: Any) -> None:
    note = f": {printable(progress.message)}" if progress.message else ""
    print(f"… {progress.stage}{note}", file=sys.stderr)


async def _publish(jobs: "list[Job]", *, bulk: bool) -> None:
    import asyncio

    from rich.progress import Progress

    in_flight = asyncio.Semaphore(IN_FLIGHT)
    with Progress(disable=not sys.stderr.isatty(), transient=True) as shown:
        bar = shown.add_task("publishing", total=len(jobs))
        async with _client(settings_for_clients()) as client:
            _fail_unless_connected(client)

            async def one(job: "Job") -> None:
                async with in_flight:
                    await client.publish(job, bulk=bulk)
                    shown.advance(bar)

            await asyncio.gather(*(one(job) for job in jobs))


def _fail_unless_connected(client: "ConnectorsClient") -> None:
    """End at once if the broker cannot be reached: a person waits, and can put it right."""
    from worker.broker import BrokerError

    if client.unreachable_reason is not None:
        raise BrokerError(client.unreachable_reason)


def _client(settings: "Settings") -> "ConnectorsClient":
    from worker.client import ConnectorsClient
    from worker.tls import broker_tls

    return ConnectorsClient(
        settings.rabbitmq_url.get_secret_value(),
        prefix=settings.prefix,
        reply_exchange=settings.reply_exchange,
        user_id=settings.broker_user,
        tls=partial(broker_tls, settings),
    )


def settings_for_clients() -> "Settings":
    """Return the settings; a running `connectors dev` is used if none names a broker."""
    from worker.dev.running import settings_of_dev
    from worker.settings import load_settings

    settings = load_settings()
    return settings_of_dev(settings) or settings


def _job(fields: dict[str, Any], timeout_s: float) -> "Job":
    from datetime import UTC, datetime, timedelta
    from uuid import uuid4

    from schemas.job import JobRefused, parse_job

    deadline = datetime.now(UTC) + timedelta(seconds=timeout_s)
    body = json.dumps({"id": str(uuid4()), "deadline": deadline.isoformat(), **fields}).encode()
    try:
        return parse_job(body)
    except JobRefused as refusal:
        fail(refusal.message, EXIT_USAGE)


def _params(text: str, pairs: list[str]) -> dict[str, Any]:
    source = read_text(text.removeprefix("@")) if text.startswith("@") or text == "-" else text
    try:
        params = json.loads(source)
    except (ValueError, RecursionError) as error:
        fail(f"--params is not JSON: {error}", EXIT_USAGE)
    if not isinstance(params, dict):
        fail("--params must be a JSON object", EXIT_USAGE)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--param {pair!r}: write NAME=VALUE", EXIT_USAGE)
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            params[name] = value
    return params


def _read_jobs(file: str) -> "list[Job]":
    from schemas.job import JobRefused, parse_job

    jobs: list[Job] = []
    faults: list[str] = []
    for number, line in enumerate(read_bytes(file).split(b"\n"), start=1):
        if line.strip():
            try:
                jobs.append(parse_job(line))
            except JobRefused as refusal:
                faults.append(f"line {number}: {refusal.message}")
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        fail(f"nothing was sent. {'; '.join(faults[:5])}{more}", EXIT_USAGE)
    return jobs
