"""A login to the vault that is kept alive, and the knowledge whether the vault can be read."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from loguru import logger

from connectors.sdk.errors import ConnectorError, CredentialDenied
from connectors.sdk.http.refresh_tokens import Rotation
from worker.credentials.bounded_threads import BoundedThreads, ThreadsBusy
from worker.credentials.login_gate import LoginGate, VaultLoginPolicy
from worker.credentials.source import (
    CredentialName,
    NoAnswer,
    SecretFields,
    SecretUnavailable,
    VaultUnavailable,
    WholeVaultUnavailable,
)
from worker.credentials.stored_credentials import ignore_secret
from worker.credentials.vault_client import Login, VaultClient, VaultTokenRefused
from worker.credentials.vault_config import LoginRefused, VaultAuthError
from worker.credentials.vault_policy import VAULT_POLICY, VaultPolicy
from worker.settings import SettingError

#: Reads at once, and threads: a hung vault holds these and no more. Two are left to look at it.
READERS: Final = 4
THREADS: Final = 6
#: Calls that wait for a thread: those of the watch and the logins, beside the readers'.
WAITING: Final = 20
#: A login may look up and open a wrapped secret id first: three calls.
LOGIN_CALLS: Final = 3
#: A renewal that gives less than this part of what was asked has met the token's maximum age.
WHOLE_LEASE: Final = 0.9

ResultT = TypeVar("ResultT")


class VaultAvailability:
    """Whether the vault is believed to answer: set by failed reads and by the watch."""

    def __init__(self, max_read_pause_s: float) -> None:
        self._max_read_pause_s = max_read_pause_s
        self.reason: str | None = "the vault has not been asked yet"
        self._up = asyncio.Event()
        self._failures = 0
        self._not_before = 0.0

    @property
    def pause_s(self) -> float:
        """Seconds until it may count as available again; grows with each failed read in a row."""
        return max(0.0, self._not_before - time.monotonic())

    def mark_down(self, reason: str) -> None:
        """Mark the vault unavailable; logged if that is news."""
        if reason == self.reason:
            return
        self.reason = reason
        self._up.clear()
        logger.warning("vault unavailable", reason=reason)

    def mark_read_failed(self, reason: str) -> None:
        """Mark the vault unavailable for a while, however healthy it looks."""
        if self.reason is None:
            self._failures += 1
            self._not_before = time.monotonic() + _backoff_s(self._failures, self._max_read_pause_s)
        self.mark_down(reason)

    def mark_up(self) -> None:
        """Mark the vault available, unless reads failed just now; wakes every waiter."""
        if self.reason is not None and self.pause_s == 0:
            self.reason = None
            self._up.set()
            logger.info("vault available")

    def mark_answered(self) -> None:
        """End a row of failures: a read was answered, with a secret or without."""
        self._failures = 0

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is available; False if the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True


class VaultSession:
    """Read secrets under a login that this keeps alive.

    1. `start` logs in. A refusal raises; a vault that is unavailable does not: the watch logs in later.
    2. The watch looks at the vault's health every few seconds, makes a read if no job did, prolongs
       the login at two thirds of its lease, and gets a new one if a renewal gives less than asked or
       is refused.
    3. `read` fails at once while the vault is unavailable. A 403 is looked into: a token that is
       over gets a successor, once for all reads, and the read is repeated; else it is the policy's.
    4. A read that fails is followed by one of a secret that cannot exist. Answered, it shows that only
       the one secret cannot be had; not answered, that none can, until it is.
    5. A login that is refused while the token lives harms nothing; what the vault refused is not sent
       again until it changes. When the token is over, nothing can be read, and that is said.

    `VaultCredentials` starts and closes it. hvac's calls run in its threads alone.
    """

    def __init__(
        self,
        client: VaultClient,
        *,
        timeout_s: float,
        policy: VaultPolicy = VAULT_POLICY,
        on_secret: Callable[[str], None] = ignore_secret,
        login_policy: VaultLoginPolicy = VaultLoginPolicy(),  # noqa: B008  # frozen
    ) -> None:
        self.availability = VaultAvailability(policy.max_read_pause_s)
        self._client = client
        self._timeout_s = timeout_s
        self._policy = policy
        self._on_secret = on_secret
        self._threads = BoundedThreads("vault", count=THREADS, waiting=WAITING)
        self._login: Login | None = None
        self._renew_at = math.inf
        #: What is wrong with the mount; reads are answered, and no secret is ever found.
        self.mount_fault: str | None = None
        self._readers = asyncio.Semaphore(READERS)
        self._proving: asyncio.Task[None] | None = None
        self._proved_at = 0.0
        self._gate = LoginGate(login_policy)
        self._logging_in: asyncio.Task[Login] | None = None
        self._lookup_is_denied = False
        self._refusals = 0
        self._refused_because = ""
        self._login_not_before = 0.0
        self._look = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why no secret can be had; None while they can."""
        return self.availability.reason or self.mount_fault

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the vault is believed to answer again; False when the time is over."""
        return await self.availability.wait(timeout_s)

    async def start(self) -> None:
        """Log in and begin to watch."""
        try:
            login = await self._log_in()
            if not login.is_limited:
                await self._call(lambda: self._client.check_mount(login.token))
        except LoginRefused as refused:
            raise SettingError(str(refused)) from None
        except VaultUnavailable as unavailable:
            self.availability.mark_down(unavailable.reason)
        else:
            self._proved_at = time.monotonic()
            self.availability.mark_up()
        self._watching = asyncio.create_task(self._watch(), name="watch the vault")

    async def close(self) -> None:
        """Stop watching, give back threads and connections, and forget the token."""
        own = [task for task in (self._watching, self._logging_in, self._proving) if task is not None]
        for task in own:
            task.cancel()
        if own:
            await asyncio.wait(own)
        self._threads.close()
        self._client.close()
        self._login = None
        self.availability.mark_down("the worker is stopping")

    async def read(self, name: CredentialName) -> SecretFields:
        """Read one secret.

        Raises:
            CredentialNotFound, CredentialDenied, CredentialInvalid: the vault's answer for it.
            VaultUnavailable: no answer within `timeout_s`, all calls together.
        """
        self._check_available()
        async with self._reader():
            self._check_available()
            asked_at = time.monotonic()
            # Should this read hang, it is known by its end whether others are answered.
            suspicion = asyncio.get_running_loop().call_later(self._timeout_s / 2, self._prove)
            try:
                async with asyncio.timeout(self._timeout_s):
                    secret = await self._read(name)
            except TimeoutError:
                failure: VaultUnavailable = NoAnswer("the vault did not answer in time")
            except VaultUnavailable as unavailable:
                failure = unavailable
            except ConnectorError:
                self._mark_proved()
                raise
            else:
                self._mark_proved()
                return secret
            finally:
                suspicion.cancel()
        raise await self._blamed(failure, asked_at)

    def _check_available(self) -> None:
        if self.availability.reason is not None:
            raise VaultUnavailable(self.availability.reason)

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._policy.read_wait_s):
                await self._readers.acquire()
        except TimeoutError:
            raise SecretUnavailable(
                f"each of {READERS} readers of the vault was busy for {self._policy.read_wait_s:g} s"
            ) from None
        try:
            yield
        finally:
            self._readers.release()

    async def _blamed(self, failure: VaultUnavailable, asked_at: float) -> VaultUnavailable:
        """Find out whether the whole vault failed, or the path of one secret."""
        if not isinstance(failure, WholeVaultUnavailable):
            if not isinstance(failure, NoAnswer):
                await asyncio.wait({self._prove()})
            if self._proved_at > asked_at:
                return SecretUnavailable(failure.reason)
        self.availability.mark_read_failed(failure.reason)
        self._look.set()
        return VaultUnavailable(failure.reason)

    def _prove(self) -> asyncio.Task[None]:
        """Begin to find out whether secrets can be read, or join who does."""
        if self._proving is None:
            self._proving = asyncio.create_task(self._probe(), name="probe the vault")
            self._proving.add_done_callback(self._end_proving)
        return self._proving

    def _end_proving(self, probe: asyncio.Task[None]) -> None:
        self._proving = None
        _retrieve(probe)

    async def _probe(self) -> None:
        login = self._login
        if login is None or login.is_limited:
            self._mark_proved()  # by its health alone: each use of this token is a job's
            return
        timeout_s = min(self._policy.probe_timeout_s, self._timeout_s)
        try:
            fault = await self._call(lambda: self._client.probe(login.token), timeout_s=timeout_s)
        except VaultTokenRefused:
            await self._replace_if_over(login)
        else:
            if fault is not None and fault != self.mount_fault:
                logger.error("vault mount unusable", reason=fault)
            self.mount_fault = fault
        self._mark_proved()

    def _mark_proved(self) -> None:
        self._proved_at = time.monotonic()
        self.availability.mark_answered()

    async def replace(self, name: CredentialName, rotation: Rotation) -> bool:
        """Put a rotated token into its secret; False where somebody has put another one.

        Raises:
            CredentialDenied: the policy does not let us write; says what to grant.
            CredentialNotFound, CredentialInvalid: there is no such secret any more.
            VaultUnavailable: no answer within `timeout_s`, all calls together.
        """
        login = self._login
        if login is None or self.availability.reason is not None:
            raise VaultUnavailable(self.availability.reason or "not logged in")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._call(lambda: self._client.replace(login.token, name, rotation))
        except TimeoutError:
            raise VaultUnavailable("the vault did not answer in time") from None
        except VaultTokenRefused:
            raise CredentialDenied(
                f"the vault's policy does not let the worker write {name}: grant `update` beside `read` on "
                f"{self._client.data_path(name)}"
            ) from None

    async def may_write(self, name: CredentialName) -> bool:
        """Return whether the login may store a rotated token.

        Raises:
            VaultUnavailable.
        """
        login = self._login
        if login is None:
            raise VaultUnavailable(self.availability.reason or "not logged in")
        return await self._call(lambda: self._client.may_write(login.token, name))

    async def _read(self, name: CredentialName) -> SecretFields:
        login = self._login
        if login is None or _is_over(login):
            login = await self._new_login(instead_of=login)
        try:
            return await self._call(lambda: self._client.read(login.token, name))
        except VaultTokenRefused:
            pass
        denied = CredentialDenied(
            f"the vault's policy does not let the worker read {name}: grant `read` on "
            f"{self._client.data_path(name)}"
        )
        successor = await self._replace_if_over(login)
        if successor is None:
            raise denied
        try:
            return await self._call(lambda: self._client.read(successor.token, name))
        except VaultTokenRefused:
            raise denied from None

    async def _replace_if_over(self, login: Login) -> Login | None:
        """Return a successor to a login that the vault answered 403; None if that was the policy's doing."""
        if self._lookup_is_denied or await self._is_alive(login):
            return None
        successor = await self._new_login(instead_of=login)
        # New and yet not alive: the policy lacks lookup-self. Ask no more, or each 403 costs a login.
        self._lookup_is_denied = not successor.is_limited and not await self._is_alive(successor)
        return successor

    async def _is_alive(self, login: Login) -> bool:
        return await self._call(lambda: self._client.is_alive(login.token))

    async def _new_login(self, instead_of: Login | None) -> Login:
        """Return a login to replace one that is over, unless another read has got it already."""
        if self._login is instead_of:
            self._login = None
        if self._login is not None:
            return self._login
        if time.monotonic() < self._login_not_before:
            raise WholeVaultUnavailable(f"login refused: {self._refused_because}")
        try:
            return await self._log_in()
        except (LoginRefused, VaultAuthError) as refused:
            raise WholeVaultUnavailable(f"login refused: {refused}") from None

    async def _log_in(self) -> Login:
        """Log in, or join the login under way; who is cancelled leaves it to the others."""
        if self._logging_in is None:
            self._logging_in = asyncio.create_task(self._logging_in_once(), name="log in to the vault")
            self._logging_in.add_done_callback(_retrieve)
        task = self._logging_in
        await asyncio.wait({task})
        if task.cancelled():
            raise VaultUnavailable("the worker is stopping")
        return task.result()

    async def _logging_in_once(self) -> Login:
        try:
            login = await self._log_in_if_it_may_succeed()
        except (LoginRefused, VaultAuthError) as refused:
            self._refusals += 1
            if not isinstance(refused, LoginRefused) or refused.status is None:
                self._login_not_before = time.monotonic() + _backoff_s(
                    self._refusals, self._policy.max_login_pause_s
                )
            if str(refused) != self._refused_because:
                logger.error("vault login refused", reason=str(refused))
            self._refused_because = str(refused)
            raise
        finally:
            self._logging_in = None
        if self._login is None or self._login.token != login.token:
            logger.info("vault login", lease_s=login.lease_s)
        self._refusals, self._refused_because, self._login_not_before = 0, "", 0.0
        self._lookup_is_denied = False
        self._on_secret(login.token.get_secret_value())
        self._take(login)
        return login

    async def _log_in_if_it_may_succeed(self) -> Login:
        proof = await self._call(self._client.read_proof)
        self._gate.check(proof)
        try:
            login = await self._call(
                lambda: self._client.log_in(proof), timeout_s=LOGIN_CALLS * self._timeout_s
            )
        except LoginRefused as refused:
            self._gate.refused(proof, refused)
            raise
        self._gate.accepted()
        return login

    def _take(self, login: Login) -> None:
        self._login = login
        # Jittered, so that workers started together do not renew together.
        part = random.uniform(0.6, 0.7)  # noqa: S311  # jitter, not a secret
        self._renew_at = login.began_at + login.lease_s * part if login.lease_s else math.inf

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            try:
                await self._call(
                    self._client.check_health, timeout_s=min(self._policy.probe_timeout_s, self._timeout_s)
                )
                await self._keep_login()
                if (
                    self.availability.reason is not None
                    or time.monotonic() - self._proved_at >= self._policy.prove_s
                ):
                    await self._probe()
            except VaultUnavailable as unavailable:
                self.availability.mark_down(unavailable.reason)
            except Exception as error:  # a watch that dies would hold the queues for ever
                logger.error("vault watch failed unexpectedly", error=type(error).__name__)
                self.availability.mark_down("internal error while watching the vault")
            else:
                self.availability.mark_up()

    def _pause_s(self) -> float:
        """Seconds until the next look: the interval, or sooner for what falls due before."""
        due_s = (self._renew_at - time.monotonic(), self.availability.pause_s)
        interval_s = self._policy.probe_interval_s * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, not a secret
        return min([interval_s, *(delay_s + 0.01 for delay_s in due_s if delay_s > 0)])

    async def _keep_login(self) -> None:
        """Renew or replace the login when it is due.

        Raises:
            VaultUnavailable: there is none, so nothing can be read.
        """
        login = self._login
        if login is None or _is_over(login):
            await self._new_login(instead_of=login)
        elif time.monotonic() >= self._renew_at:
            await self._prolong(login)

    async def _prolong(self, login: Login) -> None:
        if login.renewable:
            try:
                renewed = await self._call(lambda: self._client.renew(login))
            except VaultTokenRefused:
                pass  # its maximum age, or revoked
            else:
                self._take(renewed)
                if renewed.lease_s >= WHOLE_LEASE * renewed.full_lease_s:
                    return
                login = renewed
        if time.monotonic() >= self._login_not_before:
            try:
                await self._log_in()
                return
            except (LoginRefused, VaultAuthError, VaultUnavailable):
                pass  # the token we have may live on, and as long as it does, nothing is amiss
        if not await self._is_alive(login):
            await self._new_login(instead_of=login)
        self._renew_at = max(self._login_not_before, time.monotonic() + self._policy.probe_interval_s)

    async def _call(self, call: Callable[[], ResultT], *, timeout_s: float | None = None) -> ResultT:
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                return await self._threads.run(call)
        except TimeoutError:
            raise NoAnswer("the vault did not answer in time") from None
        except ThreadsBusy:
            raise NoAnswer("earlier calls to the vault still hang") from None


def _is_over(login: Login) -> bool:
    return bool(login.lease_s) and time.monotonic() >= login.began_at + login.lease_s


def _backoff_s(failures: int, most_s: float) -> float:
    """Return the backoff after `failures` failures: doubled from 1 s, 50 to 100 % of its step."""
    part = random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
    return float(min(most_s, 2.0 ** min(failures - 1, 30)) * part)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the error even where every waiter was cancelled: asyncio complains of unseen ones."""
    if not task.cancelled():
        task.exception()
