"""An action in a process of its own has all that one in the worker has, and nothing of the worker's."""

import logging
import os

import pytest
from aiohttp import web

from schemas.error import Code
from tests.connectors.sdk.isolation.conftest import Bench
from tests.support.http_servers import serve


async def test_it_runs_in_a_process_without_the_workers_environment(bench: Bench) -> None:
    seen = (await bench.run("look")).data

    assert str(os.getpid()) == seen["parent"] != seen["pid"]
    assert "https://set.example" == seen["api_url"]
    assert not [name for name in seen if name.startswith("env CONNECTORS")]
    assert "worker-secret" not in str(seen)


async def test_the_process_is_warm_for_the_next_call(bench: Bench) -> None:
    assert (await bench.run("look")).data["pid"] == (await bench.run("look")).data["pid"]


async def test_the_context_is_the_jobs(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        outcome = await bench.run("whoami", _tenant="acme", _key="k")

    assert ["acme", "k", "tenant-secret", "1"] == outcome.data
    assert ["asked"] == bench.notes
    line = next(each for each in caplog.records if each.message == "who")
    assert {"count": 2, "tenant": "acme", "connector": "isolated"}.items() <= line.fields.items()  # type: ignore[attr-defined]


async def test_an_error_crosses_the_wall_as_it_is(bench: Bench) -> None:
    error = (await bench.run("refuse")).error

    assert error is not None
    assert (Code.CONFLICT, "it is there", {"id": "17"}, 1.5) == (
        error.code,
        error.message,
        error.data,
        error.retry_after_s,
    )


async def test_a_synchronous_action_runs_in_a_thread(bench: Bench) -> None:
    assert 3 == (await bench.run("add", a=1, b=2)).data


async def test_steps_and_leases_reach_the_ledger(bench: Bench) -> None:
    first = await bench.run("order", _key="k")
    again = await bench.run("order", _key="k")

    assert ["1", "2"] == first.data == again.data
    assert again.replayed


async def test_a_refresh_token_is_kept_and_masked_by_the_worker(bench: Bench) -> None:
    outcome = await bench.run("exchange", _tenant="acme", tenant="acme")

    assert outcome.error is None
    (rotation,) = bench.kept
    assert (("acme", "isolated", "default"), "key") == (rotation.account, rotation.field)
    assert "newer-secret" == rotation.newest.get_secret_value()
    assert ["tenant-secret"] == [token.get_secret_value() for token in rotation.older]
    assert ["newer-secret"] == bench.secrets
    assert [(("acme", "isolated", "default"), 1, 4)] == bench.quotas


async def test_a_process_may_not_write_the_secret_of_another_account(bench: Bench) -> None:
    outcome = await bench.run("exchange", _tenant="acme", tenant="other")

    assert outcome.error is not None
    assert "may not write that secret" in outcome.error.message
    assert not bench.kept


class TestSending:
    """Requests leave from the process; what they may have changed is known in the worker."""

    @pytest.fixture
    async def provider(self):  # type: ignore[no-untyped-def]
        async def answer(request: web.Request) -> web.Response:
            return web.Response(
                status=409 if request.path == "/conflict" else 500 if request.path == "/broken" else 201
            )

        async with serve(answer) as served:
            yield served

    @pytest.fixture
    def base_url(self, provider) -> str:  # type: ignore[no-untyped-def]
        return str(provider.url)

    async def test_a_write_is_sent_and_counted(self, bench: Bench) -> None:
        assert 201 == (await bench.run("send")).data
        assert [("loopback", "2xx")] == bench.calls

    async def test_a_refused_write_is_known_to_have_done_nothing(self, bench: Bench) -> None:
        outcome = await bench.run("send", path="/conflict")

        assert outcome.error is not None
        assert (Code.CONFLICT, False) == (outcome.error.code, outcome.is_uncertain)

    async def test_a_broken_write_is_unknown(self, bench: Bench) -> None:
        outcome = await bench.run("send", path="/broken")

        assert outcome.error is not None
        assert Code.OUTCOME_UNKNOWN == outcome.error.code

    async def test_an_undo_gets_what_the_run_returned(self, bench: Bench, provider) -> None:  # type: ignore[no-untyped-def]
        await bench.run("send", _key="k")
        outcome = await bench.run("send", _key="k", _mode="undo")

        assert outcome.error is None
        assert b"DELETE /201" == provider.requests[-1]
