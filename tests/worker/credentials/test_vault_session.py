"""Logins, refusals and outages, against a stub at the HTTP edge."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from pydantic import SecretStr

from connectors.sdk.errors import CredentialDenied, CredentialInvalid, CredentialNotFound
from tests.support.proxy import proxy
from tests.support.vault_stub import BAD_LOGIN, BAD_TOKEN, DENIED, SEALED, Answer, Asked, VaultStub
from worker.credentials.cache import CachePolicy
from worker.credentials.source import (
    CredentialName,
    SecretFields,
    SecretStore,
    SecretUnavailable,
    VaultUnavailable,
)
from worker.credentials.vault_client import VaultClient
from worker.credentials.vault_config import VaultAuthError, VaultConfig
from worker.credentials.vault_policy import VaultPolicy
from worker.credentials.vault_source import VaultCredentials
from worker.settings import SettingError

pytestmark = pytest.mark.integration

CANARY = "canary-8f2b61c0d7"
NO_CACHE = CachePolicy(ttl_s=0, stale_s=0, refusal_s=0)
Connect = Callable[..., Awaitable[VaultCredentials]]


@pytest.fixture
def stub() -> Iterator[VaultStub]:
    with VaultStub().running() as stub:
        stub.secrets["acme/http/default"] = {"token": CANARY}
        yield stub


@pytest.fixture
async def connect(stub: VaultStub) -> AsyncIterator[Connect]:
    """Start sources on the stub, by AppRole unless told otherwise; close them after the test."""
    sources: list[VaultCredentials] = []

    async def start(*, policy: CachePolicy = NO_CACHE, **changes: Any) -> VaultCredentials:
        on_secret = changes.pop("on_secret", lambda _: None)
        vault_policy = VaultPolicy(probe_interval_s=0.05, **changes.pop("vault_policy", {}))
        fields: dict[str, Any] = {
            "url": stub.url,
            "auth": "approle",
            "role_id": "the-role",
            "secret_id": SecretStr("the-secret-id"),
            "timeout_s": 2.0,
        }
        config = VaultConfig(**(fields | changes))
        source = VaultCredentials(config, policy=policy, vault_policy=vault_policy, on_secret=on_secret)
        sources.append(source)
        await source.start()
        return source

    yield start
    for source in sources:
        await source.close()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line that loguru and the standard library's loggers write, at their most talkative."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(json.dumps(message.record, default=str)), level="TRACE")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)
    logger.remove(sink)


async def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.005)


async def token_of(source: SecretStore) -> object:
    return (await source.fetch("acme", "http", "default"))["token"]


def vault_threads(
    but: frozenset[threading.Thread] | set[threading.Thread] = frozenset(),
) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("vault-")} - but


def everything_said(error: BaseException | None) -> str:
    """All that an error and those behind it could show, attributes included."""
    said = ""
    while error is not None:
        said += f"{error!r} {error} {vars(error)!r} {getattr(getattr(error, 'request', None), 'headers', '')}"
        error = error.__cause__ or error.__context__
    return said


async def test_a_secret_is_read_under_an_approle_login(stub: VaultStub, connect: Connect) -> None:
    source = await connect()

    assert await token_of(source) == CANARY
    assert [asked.path for asked in stub.asked("/data/")] == ["secret/data/connectors/acme/http/default"]
    assert stub.asked("/data/")[0].token == "s.token-1"


async def test_a_token_in_the_environment_is_never_used(
    stub: VaultStub, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "s.ambient-root")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vault-token").write_text("s.ambient-home")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b")
    source = await connect()

    await token_of(source)

    assert {asked.token for asked in stub.journal} == {None, "s.token-1"}
    assert not any("authorization" in asked.headers for asked in stub.journal)


async def test_kubernetes_logs_in_with_the_pods_token(
    stub: VaultStub, connect: Connect, tmp_path: Path
) -> None:
    jwt = tmp_path / "token"
    jwt.write_text("header.payload.signature\n")

    source = await connect(auth="kubernetes", jwt_file=jwt, secret_id=None)

    assert await token_of(source) == CANARY
    assert stub.asked("kubernetes/login")[0].body == {"role": "the-role", "jwt": "header.payload.signature"}


async def test_a_token_is_taken_as_it_is_and_looked_up(stub: VaultStub, connect: Connect) -> None:
    stub.tokens.add("s.given")

    source = await connect(auth="token", token=SecretStr("s.given"))

    assert await token_of(source) == CANARY
    assert stub.asked("/login") == []


async def test_namespace_and_request_headers_are_sent(stub: VaultStub, connect: Connect) -> None:
    source = await connect(namespace="team/eu")

    await token_of(source)

    await until(lambda: bool(stub.asked("sys/health")))
    sent = {(asked.path == "sys/health", asked.headers.get("x-vault-namespace")) for asked in stub.journal}
    assert {(False, "team/eu"), (True, None)} == sent, "health is asked of the vault, not of a namespace"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://vault.example:8200"}, "CONNECTORS_PLAINTEXT_HOSTS"),
        ({"url": "ftp://vault.example"}, "CONNECTORS_VAULT_URL"),
        ({"url": "https://user:pw@vault.example"}, "CONNECTORS_VAULT_URL"),
        ({"url": "https://"}, "CONNECTORS_VAULT_URL"),
        ({"role_id": None}, "CONNECTORS_VAULT_ROLE_ID"),
        ({"secret_id": None}, "CONNECTORS_VAULT_SECRET_ID_FILE"),
        ({"secret_id": SecretStr("two words")}, "CONNECTORS_VAULT_SECRET_ID is"),
        ({"secret_id": SecretStr("\u0430")}, "CONNECTORS_VAULT_SECRET_ID is"),
        ({"secret_id_file": Path("nowhere")}, "CONNECTORS_VAULT_SECRET_ID_FILE=nowhere cannot be read"),
        ({"auth": "token"}, "CONNECTORS_VAULT_TOKEN_FILE"),
        ({"auth": "token", "token": SecretStr("s.unknown")}, "CONNECTORS_VAULT_TOKEN"),
        ({"auth": "kubernetes", "jwt_file": Path("nowhere")}, "nowhere"),
        ({"namespace": "a\r\nX-Vault-Token: b"}, "CONNECTORS_VAULT_NAMESPACE"),
        ({"ca_file": Path("nowhere")}, "CONNECTORS_CA_FILE"),
        ({"secret_id": SecretStr("wrong")}, "CONNECTORS_VAULT_ROLE_ID"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
async def test_a_wrong_setting_stops_the_start_with_one_line(
    connect: Connect, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message) as error:
        await connect(**changes)

    assert "\n" not in str(error.value)
    assert "wrong" not in everything_said(error.value).replace("is wrong", "")


async def test_plain_http_goes_to_hosts_that_are_named(stub: VaultStub) -> None:
    VaultConfig(
        url="http://openbao:8200", auth="token", token=SecretStr("x"), plaintext_hosts=frozenset({"openbao"})
    )


async def test_a_wrapped_secret_id_is_checked_and_opened_once(
    stub: VaultStub, connect: Connect, tmp_path: Path
) -> None:
    wrapping = "s.wrapping0123456789abcdef"
    stub.wrapped[wrapping] = ("auth/approle/role/worker/secret-id", "the-secret-id")
    file = tmp_path / "secret-id"
    file.write_text(json.dumps({"wrap_info": {"token": wrapping}}, indent=2))
    stub.lease_s, stub.renewed_lease_s = 0.4, 0.1

    source = await connect(secret_id=None, secret_id_file=file)

    assert await token_of(source) == CANARY
    await until(lambda: len(stub.asked("approle/login")) >= 2)
    assert len(stub.asked("sys/wrapping/unwrap")) == 1


@pytest.mark.parametrize(
    "made_at",
    ["sys/wrapping/wrap", "auth/approle/role/../x/secret-id", "cubbyhole/auth/approle/role/x/secret-id"],
)
async def test_a_wrapping_token_made_elsewhere_is_refused_unopened(
    stub: VaultStub, connect: Connect, made_at: str
) -> None:
    wrapping = "hvs.wrapping0123456789abcdef"
    stub.wrapped[wrapping] = (made_at, "the-secret-id")

    with pytest.raises(VaultAuthError, match="made at") as alarm:
        await connect(secret_id=SecretStr(wrapping))

    assert alarm.value.exit_code == 77
    assert stub.asked("unwrap") == []
    assert wrapping not in everything_said(alarm.value)


async def test_a_wrapping_token_that_was_used_is_an_alarm(stub: VaultStub, connect: Connect) -> None:
    with pytest.raises(VaultAuthError, match="intercepted"):
        await connect(secret_id=SecretStr("s.wrapping0123456789abcdef"))


async def test_a_redirect_is_not_followed_and_the_token_stays(
    stub: VaultStub, connect: Connect, log: list[str]
) -> None:
    with VaultStub().running() as elsewhere:
        source = await connect()
        stub.script["/data/"] = Answer(307, headers={"location": f"{elsewhere.url}/v1/secret/data/x"})

        with pytest.raises(VaultUnavailable, match="a redirect"):
            await token_of(source)

        assert elsewhere.journal == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>Welcome to the proxy</html>", {"content-type": "text/html"}),
        Answer(404, b"<html>Not Found</html>", {"content-type": "text/html"}),
        Answer(403, b"<html>Forbidden</html>", {"content-type": "text/html"}),
        Answer(200, b""),
        Answer(200, b'{"data": {"data": {"token": "canary-8f2b6'),
        Answer(200, b'{"data": {"data": {"token": NaN}, "metadata": {}}}'),
        Answer(200, b"[" * 100_000),
        Answer(200, b"\xff\xfe{}"),
        Answer(200, b"[]"),
        Answer(200, b"null"),
        Answer(200, b'{"data": null}'),
        Answer(200, b'{"data": "text"}'),
        Answer(200, b'{"data": {"token": "version 1 of KV has no metadata"}}'),
        Answer(200, b"{}", {"content-length": "900"}),
        Answer(204),
        Answer(400, {"errors": ["what?"]}),
        Answer(412, {"errors": ["required index state not present"]}),
        Answer(418, {"errors": []}),
        Answer(429, {"errors": ["rate limit quota exceeded"]}),
        Answer(500, {"errors": ["internal error"]}),
        Answer(502, b"Bad Gateway"),
        SEALED,
    ],
    ids=lambda answer: f"{answer.status}-{len(answer.body)}",
)
async def test_what_no_vault_would_say_of_any_secret_is_an_outage(
    stub: VaultStub, connect: Connect, log: list[str], answer: Answer
) -> None:
    source = await connect()
    stub.script["/data/"] = answer
    if answer.headers.get("content-length") == "900":
        stub.script["/data/"] = Answer(200, b"{}", {"content-length": "900", "connection": "close"})

    with pytest.raises(VaultUnavailable) as outage:
        await token_of(source)

    assert source.unavailable_reason == outage.value.reason
    assert CANARY[:13] not in everything_said(outage.value)
    assert "s.token" not in everything_said(outage.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": {"data": "text", "metadata": {}}}, "not an object"),
        ({"data": {"data": ["a"], "metadata": {}}}, "not an object"),
        ({"data": {"data": {"token": "x" * 1024 * 1024}, "metadata": {}}}, "larger than"),
    ],
    ids=["string", "list", "large"],
)
async def test_a_secret_that_is_no_object_of_fields_is_invalid(
    stub: VaultStub, connect: Connect, body: dict[str, Any], message: str
) -> None:
    source = await connect()
    stub.script["/data/"] = Answer(200, body)

    with pytest.raises(CredentialInvalid, match=message):
        await token_of(source)

    assert source.available


async def test_missing_deleted_and_destroyed_secrets_are_told_apart(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect()
    answers = {
        "store it": Answer(404, {"errors": []}),
        "deleted": Answer(404, {"data": {"data": None, "metadata": {"deletion_time": "2026-11-23"}}}),
        "destroyed": Answer(404, {"data": {"data": None, "metadata": {"destroyed": True}}}),
        "CONNECTORS_VAULT_MOUNT": Answer(404, {"errors": ["no handler for route 'x'."]}),
    }

    for message, answer in answers.items():
        stub.script["/data/"] = answer
        with pytest.raises(CredentialNotFound, match=message):
            await token_of(source)
    assert source.available


async def test_a_name_that_leaves_its_place_reaches_no_vault(stub: VaultStub, connect: Connect) -> None:
    source = await connect()
    asked = len(stub.asked("data"))

    for hostile in ("../b", "..", "a/b", "a\n", "%2e%2e", ""):
        with pytest.raises(CredentialNotFound):
            await source.fetch("acme", "http", hostile)
        with pytest.raises(CredentialNotFound):
            await source.invalidate(hostile, "http", "default")

    assert len(stub.asked("data")) == asked


async def test_a_policy_that_forbids_one_secret_denies_it_and_keeps_the_token(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect()
    stub.secrets["globex/http/default"] = {"token": "other"}
    stub.script["/acme/"] = DENIED

    with pytest.raises(CredentialDenied, match="secret/data/connectors/acme/http/default"):
        await token_of(source)

    assert source.available
    assert (await source.fetch("globex", "http", "default"))["token"] == "other"
    assert len(stub.asked("/login")) == 1


async def test_a_token_that_is_over_gets_one_successor_for_all_reads(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect()
    for number in range(12):
        stub.secrets[f"acme/http/c{number}"] = {"number": number}
    stub.tokens.clear()

    secrets = await asyncio.gather(*(source.fetch("acme", "http", f"c{number}") for number in range(12)))

    assert [secret["number"] for secret in secrets] == list(range(12))
    assert len(stub.asked("/login")) == 2


async def test_a_policy_without_lookup_self_costs_no_login_for_each_denial(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect()
    stub.script["/acme/"] = stub.script["lookup-self"] = BAD_TOKEN

    for _ in range(4):
        with pytest.raises(CredentialDenied):
            await token_of(source)

    assert len(stub.asked("/login")) == 2


async def test_a_policy_of_the_least_costs_no_login_for_each_probe(stub: VaultStub, connect: Connect) -> None:
    stub.script["connectors/_/"] = DENIED
    stub.script["lookup-self"] = BAD_TOKEN
    source = await connect(vault_policy={"prove_s": 0.01})

    await until(lambda: len(stub.asked("connectors/_/")) >= 5)

    assert source.available
    assert len(stub.asked("/login")) <= 2


async def test_a_login_is_renewed_before_its_lease_is_over(stub: VaultStub, connect: Connect) -> None:
    stub.lease_s = 0.3
    source = await connect()

    await until(lambda: len(stub.asked("renew-self")) >= 2)

    assert len(stub.asked("/login")) == 1
    assert stub.asked("renew-self")[0].body == {"increment": "1s"}
    assert source.available


@pytest.mark.faults
async def test_a_renewal_that_gives_less_than_asked_is_followed_by_a_login(
    stub: VaultStub, connect: Connect
) -> None:
    stub.lease_s, stub.renewed_lease_s = 0.6, 0.3
    source = await connect()

    async with asyncio.timeout(5):
        while not stub.asked("/data/") or stub.asked("/data/")[-1].token != "s.token-2":
            assert await token_of(source) == CANARY

    assert len(stub.asked("renew-self")) == 1


async def test_a_refused_renewal_is_followed_by_a_login(stub: VaultStub, connect: Connect) -> None:
    stub.lease_s = 0.3
    stub.script["renew-self"] = BAD_TOKEN
    source = await connect()

    await until(lambda: len(stub.asked("/login")) == 2)

    assert source.available


@pytest.mark.faults
async def test_a_refused_login_leaves_the_token_in_use_until_its_end(
    stub: VaultStub, connect: Connect, tmp_path: Path, log: list[str]
) -> None:
    file = tmp_path / "secret-id"
    file.write_text("the-secret-id\n")
    stub.lease_s, stub.renewed_lease_s = 0.4, 0.1
    stub.script["renew-self"] = BAD_TOKEN
    source = await connect(secret_id=None, secret_id_file=file)
    file.write_text("used-up")

    await until(lambda: len(stub.asked("/login")) == 2)
    assert source.available
    assert await token_of(source) == CANARY

    stub.tokens.clear()
    await until(lambda: not source.available)
    assert "login refused" in str(source.unavailable_reason)
    with pytest.raises(VaultUnavailable, match="login refused"):
        await token_of(source)

    file.write_text("the-secret-id")
    assert await source.wait_available(10)
    assert await token_of(source) == CANARY
    assert not any("used-up" in line or "the-secret-id" in line for line in log)


@pytest.mark.faults
async def test_a_refused_secret_id_is_not_sent_again_until_it_changes(
    stub: VaultStub, connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "secret-id"
    file.write_text("the-secret-id")
    source = await connect(secret_id=None, secret_id_file=file)
    stub.secret_ids, stub.tokens = {"the-new-one"}, set()
    for _ in range(20):
        with pytest.raises(VaultUnavailable):
            await token_of(source)
    looks = len(stub.asked("sys/health"))
    await until(lambda: len(stub.asked("sys/health")) >= looks + 20)
    refused = len(stub.asked("/login")) - 1

    file.write_text("the-new-one")
    back = await source.wait_available(5)

    assert (1, True) == (refused, back)
    assert CANARY == await token_of(source)


async def test_a_vault_that_is_sealed_at_the_start_is_waited_for(stub: VaultStub, connect: Connect) -> None:
    stub.script[""] = SEALED

    source = await connect()
    assert source.unavailable_reason == "the vault is sealed"
    assert not await source.wait_available(0.01)

    del stub.script[""]
    assert await source.wait_available(5)
    assert await token_of(source) == CANARY


async def test_a_vault_that_is_not_there_at_the_start_is_waited_for(connect: Connect) -> None:
    source = await connect(url="http://127.0.0.1:1")

    assert source.unavailable_reason == "the vault cannot be reached"


async def test_a_seal_is_noticed_while_nobody_reads(stub: VaultStub, connect: Connect) -> None:
    source = await connect()

    stub.script["sys/health"] = Answer(503, {"initialized": True, "sealed": True, "standby": True})
    await until(lambda: not source.available)

    assert source.unavailable_reason == "the vault is sealed"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(501, {"initialized": False, "sealed": True}), "not initialized"),
        (Answer(472, {"initialized": True, "sealed": False}), "disaster-recovery"),
        (
            Answer(200, b"<html>OK</html>", {"content-type": "text/html"}),
            "HTTP 200 with text/html that is not",
        ),
        (Answer(200, {"status": "ok"}), "does not say whether it is sealed"),
        (Answer(302, headers={"location": "https://elsewhere.example/"}), "HTTP 302, a redirect"),
    ],
    ids=["uninitialized", "secondary", "html", "other-json", "redirect"],
)
async def test_a_vault_in_no_state_to_be_read_is_named(
    stub: VaultStub, connect: Connect, answer: Answer, reason: str
) -> None:
    source = await connect()

    stub.script["sys/health"] = answer
    await until(lambda: not source.available)

    assert reason in str(source.unavailable_reason)


async def test_a_standby_is_healthy_since_it_passes_reads_on(stub: VaultStub, connect: Connect) -> None:
    source = await connect()
    stub.script["sys/health"] = Answer(429, {"initialized": True, "sealed": False, "standby": True})

    looks = len(stub.asked("sys/health"))
    await until(lambda: len(stub.asked("sys/health")) > looks + 3)

    assert source.available


async def test_while_the_vault_is_away_reads_fail_at_once_and_ask_nothing(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect()
    stub.script[""] = SEALED
    await until(lambda: not source.available)
    asked = len(stub.asked("/data/"))

    for _ in range(100):
        with pytest.raises(VaultUnavailable, match="sealed"):
            await token_of(source)

    assert len(stub.asked("/data/")) == asked


#: What a vault may answer for one secret while it gives the others.
OF_ONE_SECRET = [
    Answer(200, b"<html>Welcome to the proxy</html>", {"content-type": "text/html"}),
    Answer(200, b'{"data": null}'),
    Answer(200, b"{}"),
    Answer(400, {"errors": ["what?"]}),
    Answer(412, {"errors": ["required index state not present"]}),
    Answer(500, {"errors": ["internal error"]}),
    Answer(502, b"Bad Gateway"),
]


@pytest.mark.parametrize("answer", OF_ONE_SECRET, ids=lambda answer: f"{answer.status}-{len(answer.body)}")
async def test_a_fault_of_one_secret_is_no_outage_for_another(
    stub: VaultStub, connect: Connect, answer: Answer
) -> None:
    source = await connect()
    stub.secrets["globex/http/default"] = {"token": "other"}
    stub.script["data/connectors/acme/"] = answer

    with pytest.raises(SecretUnavailable):
        await token_of(source)

    assert source.available
    assert "other" == (await source.fetch("globex", "http", "default"))["token"]


async def test_a_secret_that_hangs_is_no_outage_for_another(stub: VaultStub, connect: Connect) -> None:
    source = await connect(timeout_s=0.6)
    stub.secrets["globex/http/default"] = {"token": "other"}
    stub.script["data/connectors/acme/"] = Answer(200, b"{}" * 40, drip_s=0.05)

    with pytest.raises(SecretUnavailable, match="in time"):
        await token_of(source)

    assert source.available
    assert "other" == (await source.fetch("globex", "http", "default"))["token"]


async def test_a_secret_that_fails_is_read_ever_more_rarely(stub: VaultStub, connect: Connect) -> None:
    source = await connect(policy=CachePolicy(ttl_s=0, stale_s=0, refusal_s=0, pause_s=0.05))
    stub.script["data/connectors/acme/"] = Answer(500, {"errors": []})

    ends_at = time.monotonic() + 1.0
    while time.monotonic() < ends_at:
        with pytest.raises(SecretUnavailable):
            await token_of(source)
    del stub.script["data/connectors/acme/"]
    asked = len(stub.asked("/acme/"))

    assert 3 <= asked <= 7
    async with asyncio.timeout(3):
        while await _is_withheld(source):
            pass


async def _is_withheld(source: SecretStore) -> bool:
    try:
        await token_of(source)
    except SecretUnavailable:
        return True
    return False


async def test_a_standby_that_lags_is_asked_again_within_the_call(stub: VaultStub, connect: Connect) -> None:
    source = await connect()
    lags = Answer(412, {"errors": ["required index state not present"]})
    stub.script["data/connectors/acme/"] = lambda _: lags if len(stub.asked("/acme/")) < 3 else None

    assert CANARY == await token_of(source)


def _slow_secrets(stub: VaultStub) -> None:
    for number in range(40):
        stub.secrets[f"acme/http/c{number}"] = {"number": number}
    stub.script["data/connectors/acme/"] = lambda _: time.sleep(0.1)


async def test_reads_that_wait_for_a_reader_are_no_outage(stub: VaultStub, connect: Connect) -> None:
    source = await connect(timeout_s=0.5)
    _slow_secrets(stub)

    secrets = await asyncio.gather(*(source.fetch("acme", "http", f"c{number}") for number in range(40)))

    assert list(range(40)) == [secret["number"] for secret in secrets], "though the last waited for 0.9 s"


async def test_reads_that_find_no_reader_in_time_are_no_outage(stub: VaultStub, connect: Connect) -> None:
    source = await connect(timeout_s=0.5, vault_policy={"read_wait_s": 0.05})
    _slow_secrets(stub)

    outcomes = await asyncio.gather(
        *(source.fetch("acme", "http", f"c{number}") for number in range(12)), return_exceptions=True
    )

    assert {SecretUnavailable, SecretFields} == {type(outcome) for outcome in outcomes}
    assert source.available


async def test_a_cut_connection_costs_a_read_nothing(stub: VaultStub, connect: Connect) -> None:
    async with proxy(int(stub.url.rpartition(":")[2])) as wire:
        source = await connect(url=f"http://127.0.0.1:{wire.port}")
        for _ in range(3):
            await token_of(source)
            wire.reset()
            assert CANARY == await token_of(source)

        assert await source.wait_available(10)


async def test_connections_that_a_balancer_dropped_cost_one_timeout(
    stub: VaultStub, connect: Connect
) -> None:
    for number in range(4):
        stub.secrets[f"acme/http/c{number}"] = {"number": number}

    async def read(source: VaultCredentials, name: str) -> None:
        while True:  # as a job does
            try:
                await source.fetch("acme", "http", name)
                return
            except VaultUnavailable:
                await source.wait_available(5)

    async def read_all(source: VaultCredentials) -> None:
        await asyncio.gather(*(read(source, f"c{number}") for number in range(4)))

    async with proxy(int(stub.url.rpartition(":")[2])) as wire:
        source = await connect(url=f"http://127.0.0.1:{wire.port}", timeout_s=0.5)
        await read_all(source)
        wire.forget()

        begun = time.monotonic()
        await read_all(source)

        assert time.monotonic() - begun < 3


async def test_an_idle_worker_notices_a_vault_that_gives_no_secrets(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect(vault_policy={"prove_s": 0.1})

    stub.script["/data/"] = Answer(500, {"errors": []})
    await until(lambda: not source.available)
    reason = source.unavailable_reason
    stub.script["/data/"] = Answer(404, {"errors": ["no handler for route 'secret/data'"]})
    await until(lambda: "MOUNT" in str(source.unavailable_reason))
    del stub.script["/data/"]
    await until(lambda: source.available)

    assert "the vault answered HTTP 500" == reason


async def test_a_token_of_few_uses_is_kept_for_jobs(stub: VaultStub, connect: Connect) -> None:
    auth = {"client_token": "s.token-1", "lease_duration": 3600, "renewable": True, "num_uses": 1}
    stub.tokens.add("s.token-1")
    stub.script["approle/login"] = Answer(200, {"auth": auth})
    source = await connect(vault_policy={"prove_s": 0.01})

    looks = len(stub.asked("sys/health"))
    await until(lambda: len(stub.asked("sys/health")) > looks + 3)

    assert [] == [asked.path for asked in stub.journal if asked.token == "s.token-1"]
    assert source.available


@pytest.mark.faults
async def test_a_rate_limit_is_given_time(stub: VaultStub, connect: Connect) -> None:
    source = await connect()
    limited = Answer(429, {"errors": ["rate limit quota exceeded"]})
    stub.script["/data/"] = lambda _: limited if len(stub.asked("/data/")) == 1 else None
    started_at = time.monotonic()

    with pytest.raises(VaultUnavailable, match="rate limit"):
        await token_of(source)
    assert await source.wait_available(5)

    assert time.monotonic() - started_at >= 0.5
    assert await token_of(source) == CANARY


@pytest.mark.faults
async def test_a_hung_vault_holds_a_few_threads_and_neither_loop_nor_cache(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect(policy=CachePolicy(ttl_s=0.2, stale_s=60, refusal_s=0), timeout_s=0.5)
    others = set(threading.enumerate()) - vault_threads()
    for number in range(200):
        stub.secrets[f"acme/http/c{number}"] = {"number": number}
    assert await token_of(source) == CANARY
    longest_s = 0.0

    async def watch_the_loop() -> None:
        nonlocal longest_s
        while True:
            asleep_at = time.monotonic()
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, time.monotonic() - asleep_at)

    watching = asyncio.create_task(watch_the_loop())
    stub.open.clear()
    started_at = time.monotonic()
    outcomes = await asyncio.gather(
        *(source.fetch("acme", "http", f"c{number}") for number in range(200)), return_exceptions=True
    )
    took_s = time.monotonic() - started_at

    assert {type(outcome) for outcome in outcomes} == {VaultUnavailable}
    assert took_s < 1
    assert len(vault_threads(but=others)) <= 6
    assert await token_of(source) == CANARY  # stale
    watching.cancel()
    assert longest_s < 0.3
    stub.open.set()
    assert await source.wait_available(10)
    assert (await source.fetch("acme", "http", "c7"))["number"] == 7


@pytest.mark.faults
async def test_an_answer_that_drips_is_cut_off_and_gives_its_thread_back(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect(timeout_s=0.3)
    stub.script["/data/"] = Answer(200, b'{"data": {"data": {}, "metadata": {}}}', drip_s=0.1)
    client = VaultClient(VaultConfig(url=stub.url, auth="token", token=SecretStr("s.token-1"), timeout_s=0.3))
    name = CredentialName("acme", "http", "default")
    started_at = time.monotonic()

    for read in (token_of(source), asyncio.to_thread(client.read, SecretStr("s.token-1"), name)):
        with pytest.raises(VaultUnavailable, match="in time"):
            await read

    assert time.monotonic() - started_at < 1.2
    client.close()


async def test_two_hundred_fetches_of_a_cold_secret_ask_the_vault_once(
    stub: VaultStub, connect: Connect
) -> None:
    source = await connect(policy=CachePolicy())

    tokens = await asyncio.gather(*(token_of(source) for _ in range(200)))

    assert tokens == [CANARY] * 200
    assert len(stub.asked("/data/")) == 1


async def test_a_cancelled_fetch_disturbs_no_other(stub: VaultStub, connect: Connect) -> None:
    source = await connect(policy=CachePolicy())
    stub.open.clear()
    first = asyncio.create_task(token_of(source))
    second = asyncio.create_task(token_of(source))
    await until(lambda: stub.reading == 1)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    stub.open.set()

    assert await second == CANARY
    assert len(stub.asked("/data/")) == 1


async def test_what_must_not_be_logged_is_announced_before_anybody_has_it(
    stub: VaultStub, connect: Connect
) -> None:
    announced: list[str] = []
    source = await connect(on_secret=announced.append)

    await token_of(source)

    assert announced == ["s.token-1", CANARY]


def echo(asked: Asked) -> Answer:
    """Say everything back that was asked."""
    return Answer(500, {"errors": [f"{asked.headers} {asked.body} {CANARY}"]})


@pytest.mark.parametrize(
    "answer",
    [
        echo,
        DENIED,
        BAD_TOKEN,
        Answer(404, {"errors": [CANARY]}),
        Answer(200, f"<html>{CANARY}</html>".encode()),
        Answer(200, {"data": {"data": CANARY, "metadata": {}}}),
        Answer(200, CANARY.encode(), drip_s=0.05),
        Answer(307, headers={"location": f"http://{CANARY}.example/"}),
    ],
    ids=["echo", "denied", "expired", "missing", "html", "string", "drip", "redirect"],
)
async def test_no_failure_shows_a_secret_or_a_token(
    stub: VaultStub, connect: Connect, log: list[str], answer: Answer | Callable[[Asked], Answer]
) -> None:
    source = await connect(timeout_s=0.3)
    await token_of(source)
    stub.script["/data/"] = answer
    if answer is BAD_TOKEN:
        stub.tokens.clear()
        stub.script["approle/login"] = lambda asked: Answer(400, {"errors": [str(asked.body)]})

    with pytest.raises((VaultUnavailable, CredentialNotFound, CredentialDenied, CredentialInvalid)) as error:
        await token_of(source)

    said = everything_said(error.value) + repr(vars(source)) + " ".join(log)
    for secret in (CANARY, "s.token-1", "the-secret-id", "the-role"):
        assert secret not in said


async def test_what_the_libraries_raise_is_not_even_the_context_of_ours(stub: VaultStub) -> None:
    hung, gone = Answer(200, b"{}" * 40, drip_s=0.05), "http://127.0.0.1:1"
    html = Answer(200, f"<html>{CANARY}</html>".encode())
    cut = Answer(200, b"{}", {"content-length": "900", "connection": "close"})
    for url, answer in ((stub.url, hung), (stub.url, html), (stub.url, cut), (gone, html)):
        stub.script["/data/"] = answer
        client = VaultClient(VaultConfig(url=url, auth="token", token=SecretStr("s.root"), timeout_s=0.1))

        with pytest.raises(VaultUnavailable) as error:
            await asyncio.to_thread(
                client.read, SecretStr("s.root"), CredentialName("acme", "http", "default")
            )

        assert error.value.__context__ is None
        assert "s.root" not in everything_said(error.value)
        client.close()


async def test_a_closed_source_leaves_no_thread_and_reads_nothing(stub: VaultStub, connect: Connect) -> None:
    others = set(threading.enumerate())
    source = await connect()
    await token_of(source)

    await source.close()

    assert source.unavailable_reason == "the worker is stopping"
    with pytest.raises(VaultUnavailable):
        await token_of(source)
    await until(lambda: not vault_threads(but=others))


async def test_a_login_that_nobody_accepts_stops_the_start(stub: VaultStub, connect: Connect) -> None:
    stub.script["approle/login"] = BAD_LOGIN
    others = set(threading.enumerate())

    with pytest.raises(SettingError, match="AppRole"):
        await connect()

    await until(lambda: not vault_threads(but=others))
