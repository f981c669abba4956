"""The secrets of a vault."""

import time
from collections.abc import Callable

from worker.credentials.cache import CachePolicy
from worker.credentials.source import FetchOutcome, ignore_outcome
from worker.credentials.stored_credentials import StoredCredentials, ignore_secret
from worker.credentials.vault_client import VaultClient
from worker.credentials.vault_config import VaultConfig
from worker.credentials.vault_policy import VAULT_POLICY, VaultPolicy
from worker.credentials.vault_session import THREADS, VaultSession


class VaultCredentials(StoredCredentials):
    """Return secrets by name: the source of a worker with a vault."""

    def __init__(
        self,
        config: VaultConfig,
        *,
        policy: CachePolicy = CachePolicy(),  # noqa: B008  # frozen
        vault_policy: VaultPolicy = VAULT_POLICY,
        on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
        on_secret: Callable[[str], None] = ignore_secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        client = VaultClient(config, connections=THREADS)
        super().__init__(
            VaultSession(client, timeout_s=config.timeout_s, policy=vault_policy, on_secret=on_secret),
            policy=policy,
            keep_again_s=vault_policy.keep_again_s,
            on_fetch=on_fetch,
            on_secret=on_secret,
            clock=clock,
        )
