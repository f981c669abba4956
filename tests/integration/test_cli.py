"""The commands, as an operator types them."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import Run, StartWorker
from tests.support.http_servers import serve
from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from worker.dev.openbao import PrivateOpenBao

pytestmark = pytest.mark.integration

#: Leaves of a text what a terminal would obey.
_PRINTABLE = {ord(each): None for each in map(chr, range(0x3000)) if each.isprintable()}


async def test_call_prints_the_reply_and_exits_with_its_status(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    nobody = await asyncio.to_thread(connectors, "call", "dummy", "ping", "--timeout", "1")
    await start_worker(broker_url)

    good = connectors("call", "dummy", "echo", "--param", "message=hi", "--json")
    failed = connectors("call", "dummy", "echo", "--params", "-", stdin='{"massage": 1}')
    slow = connectors("call", "dummy", "sleep", "--param", "seconds=9", "--timeout", "1")
    usage = connectors("call", "dummy", "echo", "--params", "{")

    assert (1, True) == (nobody.returncode, "start a worker once" in nobody.stderr) or (
        nobody.returncode in {1, 3}
    )
    assert (0, {"received_message": "hi"}) == (good.returncode, json.loads(good.stdout)["data"])
    assert 1 == failed.returncode
    assert "massage: is not a known field" in failed.stdout
    assert "An agent may say" in failed.stdout
    assert (1, True) == (slow.returncode, "DEADLINE_EXCEEDED" in slow.stdout)
    assert 2 == usage.returncode
    assert 1 == len(usage.stderr.strip().splitlines())


async def test_call_without_any_worker_ends_with_3(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    worker = await start_worker(broker_url)
    worker.kill()

    waited = connectors("call", "dummy", "ping", "--timeout", "1")

    assert 3 == waited.returncode
    assert "no reply" in waited.stderr


async def test_publish_sends_all_or_nothing(
    broker_url: str, start_worker: StartWorker, connectors: Run, tmp_path: Path
) -> None:
    worker = await start_worker(broker_url)
    good = "\n".join(json.dumps(job("dummy", "ping")) for _ in range(50))

    refused = connectors("publish", "-", stdin=good + '\n{"id": "x", "connector": "Dummy"}\n')
    sent = connectors("publish", "-", stdin=good)
    strange = job("dummy", "echo", {"message": "line \u2028 and \x85 separators"})
    alone = connectors("publish", "-", "--bulk", stdin=json.dumps(strange, ensure_ascii=False) + "\r\n")
    await worker.until_logged("job finished", count=51)

    assert 2 == refused.returncode
    assert "line 51" in refused.stderr
    assert (0, "50 jobs published\n") == (sent.returncode, sent.stdout)
    assert (0, "1 job published\n") == (alone.returncode, alone.stdout)
    assert {"succeeded"} == {line["outcome"] for line in worker.logged("job finished")}


async def test_dead_letters_are_listed_shown_replayed_and_purged(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    await start_worker(broker_url)
    with ExternalClient(broker_url) as client:
        client.send(job("dummy", "fail", {"code": "NOT_FOUND"}, id="a", tenant="acme"), reply_to="")
        client.send(b"not json", key="dummy.ping", reply_to="", message_id="b")
        client.until(lambda: client.depth("connectors.dead") == 2, 10, lambda: "letters")

        listed = json.loads(connectors("dead", "list", "--json").stdout)
        again = json.loads(connectors("dead", "list", "--json").stdout)
        shown = json.loads(connectors("dead", "show", "b", "--json").stdout)
        replayed = connectors("dead", "replay", "a")
        absent = connectors("dead", "replay", "nobody")
        client.until(lambda: client.depth("connectors.dead") == 2, 10, lambda: "the letter's return")
        unasked = connectors("dead", "purge")
        purged = connectors("dead", "purge", "--yes")
        left = client.depth("connectors.dead")

    by_id = {letter["id"]: letter for letter in listed}
    assert {"a", "b"} == by_id.keys()
    assert sorted(listed, key=str) == sorted(again, key=str)
    assert {
        "reason": "NOT_FOUND",
        "attempts": 1,
        "queue": "connectors.jobs.dummy",
        "error": "as asked",
        "connector": "dummy",
        "action": "fail",
        "tenant": "acme",
    }.items() <= by_id["a"].items()
    assert by_id["a"]["first_seen"].endswith("Z")
    assert "not json" == shown[0]["body"]
    assert (0, 1) == (replayed.returncode, absent.returncode)
    assert 2 == unasked.returncode
    assert (0, 0) == (purged.returncode, left)


async def test_a_dead_letter_cannot_control_the_terminal(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    await start_worker(broker_url)
    with ExternalClient(broker_url, reply_queue=None) as client:
        client.send(
            '{"id":"a","connector":"\\u001b[2J\\u202e\x9b31m","action":"x"}'.encode(), key="dummy.ping"
        )
        client.until(lambda: client.depth("connectors.dead") == 1, 10, lambda: "the letter")

        said = [
            connectors("dead", *words).stdout
            for words in (["list"], ["list", "--json"], ["show", "a"], ["show", "a", "--json"])
        ]
        purged = connectors("dead", "purge", "a", "gone", "--yes")

    assert all("\\u001b[2J\\u202e\\u009b31m" in text for text in said)
    assert "" == "".join(said).replace("\n", "").replace("\t", "").translate(_PRINTABLE)
    assert "\x1b[2J\u202e\x9b31m" == json.loads(said[1])[0]["connector"]
    assert (1, "1 removed\n") == (purged.returncode, purged.stdout)
    assert "'gone'" in purged.stderr


async def test_personal_data_is_in_no_log_line_and_no_dead_letter_listing(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    worker = await start_worker(broker_url, enabled="effects")
    with ExternalClient(broker_url) as client:
        client.send(job("effects", "find_caller", {"phone": "+905321112233"}, id="p"), reply_to="")
        client.send(job("uninstalled", "do", {"phone": "+905321112233"}, id="q"), reply_to="")
        client.until(lambda: client.depth("connectors.dead") == 2, 10, lambda: "letters")

        listed = connectors("dead", "list", "--json").stdout
        shown = [connectors("dead", "show", each, "--json").stdout for each in ("p", "q")]
        revealed = connectors("dead", "show", "p", "--reveal").stdout

    assert "nobody has the number ***" in listed
    assert '\\"phone\\": \\"***\\"' in shown[0]
    for text in (listed, *shown, worker.log_path.read_text()):
        assert "5321112233" not in text
    assert "+905321112233" in revealed
    assert "asked for ***" in worker.log_path.read_text()


async def test_a_replayed_job_runs_although_its_deadline_has_passed(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    worker = await start_worker(broker_url)
    passed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    with ExternalClient(broker_url, reply_queue="callers.replies") as client:
        client.send(job("dummy", "ping", id="late", deadline=passed), reply_to="amq.gen-gone")
        client.until(lambda: client.depth("connectors.dead") == 1, 10, lambda: "the letter")

        assert 0 == connectors("dead", "replay", "late").returncode
        await worker.until_logged("job finished", count=2)

    assert ["DEADLINE_EXCEEDED", "succeeded"] == [line["outcome"] for line in worker.logged("job finished")]


async def test_an_unknown_outcome_is_resolved_and_its_replay_answered(
    broker_url: str, start_worker: StartWorker, connectors: Run, tmp_path: Path
) -> None:
    provider = Provider()
    await provider.start()
    provider.is_cut = lambda key: True
    await start_worker(broker_url, enabled="effects", EFFECTS_URL=provider.url)

    def story() -> tuple[str, int, dict[str, object]]:
        with ExternalClient(broker_url, reply_queue="callers.replies") as client:
            first = client.call(job("effects", "scribble", id="u"))
            resolved = connectors("dead", "resolve", "u", "--happened")
            seen = sum(map(len, client.replies.values()))
            connectors("dead", "replay", "u")
            client.until(
                lambda: sum(map(len, client.replies.values())) > seen, 20, lambda: "the second answer"
            )
            replies = [reply for copies in client.replies.values() for reply in copies]
            return first["error"]["code"], resolved.returncode, replies[-1]

    code, resolved, last = await asyncio.to_thread(story)
    await provider.stop()

    assert ("OUTCOME_UNKNOWN", 0) == (code, resolved)
    assert ("succeeded", True) == (last["status"], last["replayed"])
    assert 1 == len(provider.journal)


async def test_queues_are_listed_and_one_is_retired(
    broker_url: str, start_worker: StartWorker, connectors: Run
) -> None:
    worker = await start_worker(broker_url, enabled="dummy,effects")
    busy = connectors("queues", "retire", "effects", "--yes")
    worker.close()
    await start_worker(broker_url)
    with ExternalClient(broker_url) as client:
        correlation_id = client.send(job("effects", "book"))
        client.until(lambda: client.depth("connectors.jobs.effects") == 1, 10, lambda: "the job")
        rows = {row["queue"]: row for row in json.loads(connectors("queues", "list", "--json").stdout)}

        retired = connectors("queues", "retire", "effects", "--yes")
        reply = client.wait([correlation_id])[correlation_id][0]

    assert 1 == busy.returncode
    assert (1, 0, True) == tuple(
        rows["connectors.jobs.effects"][key] for key in ("waiting", "consumers", "stranded")
    )
    assert not rows["connectors.jobs.dummy"]["stranded"]
    assert 0 == retired.returncode, retired.stderr
    assert "CONNECTOR_NOT_FOUND" == reply["error"]["code"]


async def test_credentials_are_put_listed_checked_and_deleted_and_never_printed(
    connectors: Run, openbao: PrivateOpenBao
) -> None:
    vault = {"vault_url": openbao.url, "vault_auth": "token", "vault_token": openbao.root_token}

    async def api(request: web.Request) -> web.Response:
        is_let_in = request.headers["Authorization"] == "Bearer s3cret-canary"
        return web.Response(status=404 if is_let_in else 401)

    def document(url: str, token: str) -> str:
        return json.dumps({"base_url": url, "auth": "bearer", "token": token})

    async with serve(api) as served:
        good, bad = (document(served.url, token) for token in ("s3cret-canary", "s3cret-canary-2"))
        put = connectors("credentials", "put", "http", "-", "--tenant", "acme", stdin=good, **vault)
        check = ["credentials", "check", "http", "--tenant", "acme"]
        checked = await asyncio.to_thread(connectors, *check, **vault)
        connectors("credentials", "put", "http", "-", "--tenant", "acme", stdin=bad, **vault)
        refused = await asyncio.to_thread(connectors, *check, **vault)
    wrong = connectors("credentials", "put", "http", "-", stdin='{"token": "s3cret-canary"}', **vault)
    listed = connectors("credentials", "list", "--tenant", "acme", "--json", **vault)
    deleted = connectors("credentials", "delete", "http", "--tenant", "acme", **vault)
    gone = connectors(*check, **vault)

    faults = [
        connectors("credentials", "put", "http", "-", "--tenant", "../x", stdin=good, **vault),
        connectors("credentials", "delete", "http", "--tenant", "nobody", **vault),
        connectors("credentials", "list", **{**vault, "vault_url": "http://127.0.0.1:1"}),
        connectors("credentials", "put", "dummy", "-", stdin="{}", **vault),
    ]

    assert [(1, 1), (1, 1), (1, 1), (2, 1)] == [
        (each.returncode, len(each.stderr.splitlines())) for each in faults
    ], [each.stderr for each in faults]
    assert "" == checked.stderr
    assert (1, True) == (refused.returncode, refused.stderr.startswith("connectors: CREDENTIAL_INVALID"))
    assert (1, True) == (wrong.returncode, "base_url" in wrong.stderr)
    assert (0, 0, 0) == (put.returncode, checked.returncode, deleted.returncode), put.stderr + checked.stderr
    assert [{"tenant": "acme", "connector": "http", "credential": "default"}] == json.loads(listed.stdout)
    assert (1, True) == (gone.returncode, "CREDENTIAL_NOT_FOUND" in gone.stderr)
    said = "".join(
        done.stdout + done.stderr for done in (wrong, put, listed, checked, refused, deleted, gone)
    )
    assert "s3cret-canary" not in said


def test_list_describe_and_config_speak_json(connectors: Run) -> None:
    listed = json.loads(connectors("list", "--json").stdout)
    described = json.loads(connectors("describe", "dummy.echo", "--json").stdout)
    config = connectors("config", "--json")

    assert {"dummy", "http", "effects"} <= {row["connector"] for row in listed}
    assert (
        'connectors call dummy echo --params \'{"message": "hello"}\'' == described["actions"][0]["example"]
    )
    url = json.loads(config.stdout)["CONNECTORS_RABBITMQ_URL"]
    assert ":******@" in url


def test_what_is_not_there_is_said_in_one_line(connectors: Run, tmp_path: Path) -> None:
    unknown = connectors("describe", "fax")
    refused = connectors("call", "dummy", "ping", rabbitmq_url="amqp://127.0.0.1:1/")
    not_text = tmp_path / "image"
    not_text.write_bytes(b"\xff\xfe")
    wrong = [
        connectors("call", "dummy", "ping", "--timeout", "nan"),
        connectors("call", "dummy", "ping", "--timeout", "0"),
        connectors("call", "dummy", "ping", "--params", f"@{not_text}"),
        connectors("credentials", "put", "http", str(not_text)),
        connectors("dead", "replay", "--reason", "NO_SUCH_CODE"),
    ]

    assert [(2, 1)] * 5 == [(each.returncode, len(each.stderr.strip().splitlines())) for each in wrong]
    assert (2, 1) == (unknown.returncode, len(unknown.stderr.strip().splitlines()))
    assert (1, 1) == (refused.returncode, len(refused.stderr.strip().splitlines()))
    assert "127.0.0.1:1" in refused.stderr


def test_help_is_instant() -> None:
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "worker", "--help"], capture_output=True, check=True)
        took.append(time.perf_counter() - begun)

    assert min(took) < 2, "0.2 s on an idle machine; heavy imports would make it several"
