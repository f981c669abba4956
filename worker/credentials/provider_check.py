"""The question whether a provider takes a credential, asked as a worker asks: its login, its way out, its tokens."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

from connectors.sdk.connector import Connector
from connectors.sdk.context import Context
from connectors.sdk.errors import ConnectorError, CredentialDenied, Timeout
from connectors.sdk.http.client import HttpPool
from connectors.sdk.http.refresh_tokens import Rotation
from worker.credentials.source import CredentialName
from worker.credentials.stored_credentials import StoredCredentials
from worker.provider_http import http_policy
from worker.settings import Settings

#: Seconds for a provider's answer; a person waits.
CHECK_TIMEOUT_S: Final = 20.0
#: The field whose value a provider may exchange at any login: each is good once.
ROTATING_FIELD: Final = "refresh_token"


class ProviderCheck:
    """Asks the provider about one credential.

    1. The secret is read as a worker reads it
    2. If a login may exchange its token, the right to store the new one is looked at first
    3. The connector's check runs with a worker's HTTP
    4. An exchanged token is stored, or its loss is reported

    Args:
        source: where the secret is read; started and closed here.
        connector: it declares a check.
    """

    def __init__(self, settings: Settings, connector: Connector[Any], source: StoredCredentials) -> None:
        self._settings = settings
        self._connector = connector
        self._source = source
        connector.settings.update(settings.of_connector(connector))

    async def run(self, tenant: str, credential: str) -> None:
        """Ask; return if the provider takes it.

        Raises:
            SettingError, VaultUnavailable: the store cannot be read.
            ConnectorError: there is no such secret, or the provider refuses it.
        """
        name = CredentialName.checked(tenant, self._connector.name, credential)
        await self._source.start()
        try:
            secret = await self._source.fetch(*name)
            fields = self._connector.read_credential(secret)
            if self._connector.can_check:
                await self._refuse_to_use_up(name, secret)
                await self._ask(name, fields)
        finally:
            await self._source.close()

    async def _refuse_to_use_up(self, name: CredentialName, secret: Mapping[str, JsonValue]) -> None:
        if ROTATING_FIELD in secret and not await self._source.may_write(name):
            raise CredentialDenied(
                f"{name} holds a refresh token, which the provider may exchange at this check, and this login "
                "may not store the new one; check it with an operator's token, or grant `update`"
            )

    async def _ask(self, name: CredentialName, credential: Any) -> None:
        rotated: list[Rotation] = []

        async def keep(rotation: Rotation) -> None:
            rotated.append(rotation)
            await self._source.keep(rotation)

        pool = HttpPool(http_policy(self._settings), keep=keep)
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._connector.call_check(self._context(name, credential, pool))
        except TimeoutError:
            raise Timeout(f"the provider did not answer in {CHECK_TIMEOUT_S:g} s") from None
        finally:
            await pool.close()
            if rotated and not await self._source.is_stored(name, rotated[-1]):
                raise ConnectorError(
                    f"the provider exchanged the refresh token of {name}, and the new one could not be stored: "
                    "the stored one is used up; authorize anew"
                )

    def _context(self, name: CredentialName, credential: Any, pool: HttpPool) -> Context[Any]:
        tenant, connector, label = name
        return Context(
            job_id="credentials-check",
            tenant=tenant,
            connector=connector,
            action="check",
            idempotency_key="credentials-check",
            credential=credential,
            http=pool.client(tenant=tenant, connector=connector, credential=label, deadline=None),
        )
