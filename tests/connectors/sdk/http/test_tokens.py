"""Access tokens: one fetch for all who wait."""

import asyncio

import pytest
from pydantic import SecretStr

from connectors.sdk.errors import CredentialInvalid, Sent, Unavailable
from connectors.sdk.http.tokens import Token, TokenCache


class Endpoint:
    """A token endpoint that answers when it is let go."""

    def __init__(self, *, lifetime_s: float | None = 3600, is_open: bool = True) -> None:
        self.calls = 0
        self.lifetime_s = lifetime_s
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def fetch(self) -> Token:
        self.calls += 1
        call = self.calls
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Token(SecretStr(f"token-{call}"), self.lifetime_s)


async def test_fifty_who_wait_make_one_fetch() -> None:
    endpoint, tokens = Endpoint(is_open=False), TokenCache()
    waiting = [asyncio.create_task(tokens.get("key", endpoint.fetch)) for _ in range(50)]
    await asyncio.sleep(0)
    endpoint.gate.set()

    values = {token.value.get_secret_value() for token in await asyncio.gather(*waiting)}

    assert {"token-1"} == values
    assert 1 == endpoint.calls


async def test_a_waiter_that_gives_up_does_not_stop_the_fetch() -> None:
    endpoint, tokens = Endpoint(is_open=False), TokenCache()
    first = asyncio.create_task(tokens.get("key", endpoint.fetch))
    second = asyncio.create_task(tokens.get("key", endpoint.fetch))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    endpoint.gate.set()

    assert "token-1" == (await second).value.get_secret_value()


async def test_a_token_is_renewed_before_it_expires() -> None:
    now_s = 0.0
    endpoint, tokens = Endpoint(lifetime_s=3600), TokenCache(clock=lambda: now_s)
    await tokens.get("key", endpoint.fetch)
    now_s = 3539.0
    await tokens.get("key", endpoint.fetch)
    assert 1 == endpoint.calls

    now_s = 3541.0
    await tokens.get("key", endpoint.fetch)

    assert 2 == endpoint.calls


async def test_a_token_without_a_lifetime_is_kept_until_it_is_refused() -> None:
    endpoint, tokens = Endpoint(lifetime_s=None), TokenCache(clock=lambda: 1e12)
    first = await tokens.get("key", endpoint.fetch)
    assert first is await tokens.get("key", endpoint.fetch)
    tokens.drop("key", first)

    second = await tokens.get("key", endpoint.fetch)
    tokens.drop("key", first)

    assert second is await tokens.get("key", endpoint.fetch)


async def test_a_failed_fetch_says_that_the_call_itself_never_left() -> None:
    endpoint, tokens = Endpoint(), TokenCache()
    endpoint.error = Unavailable("cut", sent=Sent.UNCERTAIN, retry_after_s=3)

    with pytest.raises(Unavailable) as failure:
        await tokens.get("key", endpoint.fetch)

    assert Sent.NO is failure.value.sent
    assert 3 == failure.value.retry_after_s


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    endpoint, tokens = Endpoint(is_open=False), TokenCache()
    waiting = [asyncio.create_task(tokens.get("key", endpoint.fetch)) for _ in range(3)]
    await asyncio.sleep(0)
    endpoint.error = CredentialInvalid("the provider refuses the refresh token")
    endpoint.gate.set()

    errors = await asyncio.gather(*waiting, return_exceptions=True)

    assert {CredentialInvalid} == set(map(type, errors))
    assert 3 == len(set(map(id, errors)))
    endpoint.error = None
    assert "token-2" == (await tokens.get("key", endpoint.fetch)).value.get_secret_value()


async def test_the_table_of_tokens_is_bounded() -> None:
    endpoint, tokens = Endpoint(), TokenCache(max_tokens=2)
    for key in ("a", "b", "c", "a"):
        await tokens.get(key, endpoint.fetch)

    assert 4 == endpoint.calls


async def test_closing_stops_a_fetch_on_its_way() -> None:
    endpoint, tokens = Endpoint(is_open=False), TokenCache()
    waiting = asyncio.create_task(tokens.get("key", endpoint.fetch))
    await asyncio.sleep(0)

    await tokens.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_token_does_not_show_itself() -> None:
    assert "canary" not in repr(Token(SecretStr("canary")))


async def test_a_refused_credential_is_left_alone_for_its_cool_down() -> None:
    now_s = 0.0
    endpoint, tokens = Endpoint(), TokenCache(clock=lambda: now_s)
    endpoint.error = CredentialInvalid("the login is wrong")
    with pytest.raises(CredentialInvalid):
        await tokens.get("key", endpoint.fetch, cool_down_s=60)

    with pytest.raises(CredentialInvalid, match="not tried again for 60 s") as caught:
        await tokens.get("key", endpoint.fetch, cool_down_s=60)
    assert Sent.NO is caught.value.sent
    assert 1 == endpoint.calls

    endpoint.error = None
    assert "token-2" == (await tokens.get("other", endpoint.fetch)).value.get_secret_value()
    now_s = 61.0
    assert "token-3" == (await tokens.get("key", endpoint.fetch)).value.get_secret_value()


async def test_refusals_kept_are_bounded() -> None:
    endpoint, tokens = Endpoint(), TokenCache(max_tokens=2)
    endpoint.error = CredentialInvalid("the login is wrong")
    for key in ("a", "b", "c", "a"):
        with pytest.raises(CredentialInvalid):
            await tokens.get(key, endpoint.fetch, cool_down_s=60)

    assert 4 == endpoint.calls
