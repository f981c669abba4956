"""What the cache promises, with a fake vault and a clock that tests turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest

from connectors.sdk.errors import CredentialDenied, CredentialInvalid, CredentialNotFound
from worker.credentials.cache import CachePolicy, CredentialCache
from worker.credentials.source import CredentialName, FetchOutcome, SecretFields, VaultUnavailable

NAME = CredentialName("acme", "http", "default")
OTHER = CredentialName("globex", "http", "default")
DEFAULTS = CachePolicy()


class FakeVault:
    """Numbers its answers; fails with `failure`; waits while `gate` is closed."""

    def __init__(self) -> None:
        self.reads: list[CredentialName] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._numbers = count(1)

    async def read(self, name: CredentialName) -> SecretFields:
        self.reads.append(name)
        number, failure = next(self._numbers), self.failure
        await self.gate.wait()
        if failure is not None:
            raise failure
        return SecretFields({"tenant": name.tenant, "number": number})


class Bench:
    """A cache with all that a test wants to see of it."""

    def __init__(self, policy: CachePolicy) -> None:
        self.vault = FakeVault()
        self.now = 1000.0
        self.outcomes: list[FetchOutcome] = []
        self.cache = CredentialCache(
            self.vault.read, policy, on_fetch=self.outcomes.append, clock=lambda: self.now
        )

    async def number(self, name: CredentialName = NAME) -> object:
        return (await self.cache.fetch(name))["number"]


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def build(policy: CachePolicy = DEFAULTS) -> Bench:
        benches.append(Bench(policy))
        return benches[-1]

    yield build
    for bench in benches:
        await bench.cache.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


async def settle() -> None:
    """Let tasks that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_two_hundred_fetches_of_a_cold_secret_read_it_once(bench: Bench) -> None:
    numbers = await asyncio.gather(*(bench.number() for _ in range(200)))

    assert numbers == [1] * 200
    assert bench.vault.reads == [NAME]
    assert bench.outcomes.count(FetchOutcome.FETCHED) == 1
    assert bench.outcomes.count(FetchOutcome.CACHED) == 199


async def test_a_cancelled_fetch_leaves_the_read_to_the_others(bench: Bench) -> None:
    bench.vault.gate.clear()
    first = asyncio.create_task(bench.number())
    second = asyncio.create_task(bench.number())
    await settle()

    first.cancel()
    await settle()
    bench.vault.gate.set()

    assert await second == 1
    assert first.cancelled()
    assert len(bench.vault.reads) == 1


async def test_a_fresh_secret_is_given_from_memory(bench: Bench) -> None:
    await bench.number()
    bench.now += 200

    assert await bench.number() == 1
    assert bench.outcomes == [FetchOutcome.FETCHED, FetchOutcome.CACHED]


async def test_a_secret_past_its_ttl_is_read_again(bench: Bench) -> None:
    await bench.number()
    bench.now += 301

    assert await bench.number() == 2


async def test_a_secret_in_use_is_refreshed_before_it_is_too_old(bench: Bench) -> None:
    await bench.number()
    bench.now += 299

    assert await bench.number() == 1
    await settle()

    assert await bench.number() == 2
    assert len(bench.vault.reads) == 2


async def test_secrets_read_together_are_not_refreshed_together(bench: Bench) -> None:
    names = [CredentialName("acme", "http", f"c{number}") for number in range(50)]
    await asyncio.gather(*map(bench.number, names))
    bench.now += 300 * 0.8

    await asyncio.gather(*map(bench.number, names))
    await settle()

    assert 50 < len(bench.vault.reads) < 100


async def test_without_the_vault_the_old_secret_serves_for_its_stale_time(bench: Bench) -> None:
    await bench.number()
    bench.vault.failure = VaultUnavailable("the vault is sealed")
    bench.now += 300 + 3599

    assert await bench.number() == 1

    bench.now += 2
    with pytest.raises(VaultUnavailable, match="sealed"):
        await bench.number()
    read, away = FetchOutcome.FETCHED, FetchOutcome.UNAVAILABLE
    assert bench.outcomes == [read, away, FetchOutcome.STALE, away]


async def test_a_failed_refresh_is_not_repeated_at_every_use(bench: Bench) -> None:
    await bench.number()
    bench.vault.failure = VaultUnavailable("the vault is sealed")
    bench.now += 280

    for _ in range(20):
        assert await bench.number() == 1
        await settle()

    assert len(bench.vault.reads) == 2


@pytest.mark.parametrize("refusal", [CredentialNotFound, CredentialDenied, CredentialInvalid])
async def test_after_a_refusal_the_old_secret_is_gone(
    bench: Bench, refusal: type[CredentialNotFound | CredentialDenied | CredentialInvalid]
) -> None:
    await bench.number()
    bench.vault.failure = refusal("no more")
    bench.now += 301
    with pytest.raises(refusal, match="no more"):
        await bench.number()

    bench.vault.failure = VaultUnavailable("the vault is sealed")
    bench.now += 6

    with pytest.raises(VaultUnavailable):
        await bench.number()


async def test_a_refusal_is_repeated_for_five_seconds(bench: Bench) -> None:
    bench.vault.failure = CredentialNotFound("no such credential")
    for _ in range(3):
        with pytest.raises(CredentialNotFound, match="no such credential"):
            await bench.number()
    assert len(bench.vault.reads) == 1
    assert bench.outcomes == [FetchOutcome.NOT_FOUND] * 3

    bench.vault.failure = None
    bench.now += 5.1

    assert await bench.number() == 2


async def test_an_outage_is_not_remembered(bench: Bench) -> None:
    bench.vault.failure = VaultUnavailable("the vault is sealed")
    with pytest.raises(VaultUnavailable):
        await bench.number()

    bench.vault.failure = None

    assert await bench.number() == 2


async def test_a_secret_the_provider_refused_is_read_once_more(bench: Bench) -> None:
    refused = await bench.cache.fetch(NAME)

    bench.cache.invalidate(NAME, refused)

    assert await bench.number() == 2


async def test_a_hundred_jobs_refused_at_once_read_once_more_together(bench: Bench) -> None:
    refused = await bench.cache.fetch(NAME)

    async def run_job() -> object:
        bench.cache.invalidate(NAME, refused)
        return await bench.number()

    assert await asyncio.gather(*(run_job() for _ in range(100))) == [2] * 100
    assert await run_job() == 2
    assert len(bench.vault.reads) == 2


async def test_a_refused_secret_is_not_given_while_the_vault_is_away(bench: Bench) -> None:
    await bench.number()
    bench.vault.failure = VaultUnavailable("the vault is sealed")

    bench.cache.invalidate(NAME, None)

    with pytest.raises(VaultUnavailable):
        await bench.number()


async def test_a_read_from_before_the_rotation_does_not_restore_the_old_secret(bench: Bench) -> None:
    bench.vault.gate.clear()
    early = asyncio.create_task(bench.number())
    await settle()

    bench.cache.invalidate(NAME, None)
    late = asyncio.create_task(bench.number())
    await settle()
    bench.vault.gate.set()

    assert (await early, await late) == (1, 2)
    assert await bench.number() == 2


async def test_tenants_with_secrets_of_the_same_name_never_meet(bench: Bench) -> None:
    secrets = await asyncio.gather(*(bench.cache.fetch(name) for name in [NAME, OTHER] * 20))

    assert [secret["tenant"] for secret in secrets] == ["acme", "globex"] * 20


async def test_the_least_used_secret_makes_room(make: Callable[..., Bench]) -> None:
    bench = make(CachePolicy(size=2))
    third = CredentialName("initech", "http", "default")
    for name in (NAME, OTHER, NAME, third):
        await bench.number(name)

    await bench.number(NAME)
    await bench.number(OTHER)

    assert bench.vault.reads == [NAME, OTHER, third, OTHER]


async def test_made_up_names_push_out_no_secret(make: Callable[..., Bench]) -> None:
    bench = make(CachePolicy(size=2))
    await bench.number()
    bench.vault.failure = CredentialNotFound("no such credential")
    for number in range(10):
        with pytest.raises(CredentialNotFound):
            await bench.number(CredentialName("acme", "http", f"x{number}"))

    assert await bench.number() == 1


async def test_waiters_of_one_read_get_failures_of_their_own(bench: Bench) -> None:
    bench.vault.failure = CredentialDenied("forbidden")

    failures = await asyncio.gather(*(bench.number() for _ in range(5)), return_exceptions=True)

    assert len({id(failure) for failure in failures}) == 5
    assert all(isinstance(failure, CredentialDenied) for failure in failures)
    assert bench.outcomes == [FetchOutcome.DENIED] * 5


async def test_a_close_lets_nobody_wait(bench: Bench) -> None:
    bench.vault.gate.clear()
    waiting = asyncio.create_task(bench.number())
    await settle()

    await bench.cache.close()

    with pytest.raises(VaultUnavailable, match="stopping"):
        await waiting
