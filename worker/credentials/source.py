"""Secrets by name, as the executor asks for them.

    SecretStore           the protocol
    ├── NoVault           a worker without a vault's address
    └── VaultCredentials  `vault_credentials`, of two parts:
        ├── `credential_cache`   answers from memory, and reads a cold secret once
        └── `vault_session`      a login kept alive, over `vault`, the only importer of hvac

A job names its credential; the path is built here and nowhere else. Nothing here speaks to a vault.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn, Protocol, SupportsIndex

from pydantic import JsonValue

from connectors.sdk.errors import CredentialNotFound
from connectors.sdk.http.refresh_tokens import Rotation
from connectors.sdk.runtime.action_runner import CredentialSource
from connectors.sdk.runtime.infrastructure import InfrastructureUnavailable
from schemas.job import NAME_PATTERN, SCOPE_PATTERN


class VaultUnavailable(InfrastructureUnavailable):
    """A secret cannot be had from the vault for now: infrastructure, no attempt of the job's.

    Whether the whole vault is meant or one path of it, only a probe tells.
    """


class WholeVaultUnavailable(VaultUnavailable):
    """No secret can be had: the vault says so itself, or it refuses our login."""


class NoAnswer(VaultUnavailable):
    """The vault did not answer in time."""


class SecretUnavailable(VaultUnavailable):
    """One secret cannot be had for now; the vault gives others."""


class FetchOutcome(StrEnum):
    """How one fetch ended: the label of `connectors_credential_fetches_total`."""

    FETCHED = "fetched"
    CACHED = "cached"
    STALE = "stale"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"


class SecretStore(CredentialSource, Protocol):
    """Where a worker's secrets come from. `service` starts and closes it."""

    @property
    def available(self) -> bool:
        """Whether a secret that is not cached can be had now."""
        ...

    @property
    def unavailable_reason(self) -> str | None:
        """Why not, in one phrase; None while available."""
        ...

    async def start(self) -> None:
        """Log in; return even if the vault is unavailable.

        Raises:
            SettingError: the vault refuses the login: exit 78.
            VaultAuthError: a sign that a secret was intercepted: exit 77.
        """
        ...

    async def close(self) -> None:
        """Stop, and forget every secret."""
        ...

    async def keep(self, rotation: Rotation) -> None:
        """Store a refresh token that a provider exchanged, where the policy lets us; never raise."""
        ...


class CredentialName(NamedTuple):
    """The three names that make the path of one secret."""

    tenant: str
    connector: str
    credential: str

    @classmethod
    def checked(cls, tenant: str, connector: str, credential: str) -> "CredentialName":
        """Return the names if they have the contract's form: full matches, so no path leaves its place.

        Jobs are checked on arrival; this is the second wall, for every caller.

        Raises:
            CredentialNotFound: a secret of such a name cannot exist, so no one is asked for it.
        """
        for field, value, pattern in (
            ("tenant", tenant, SCOPE_PATTERN),
            ("connector", connector, NAME_PATTERN),
            ("credential", credential, SCOPE_PATTERN),
        ):
            if not re.fullmatch(pattern[1:-1], value):
                raise CredentialNotFound(
                    f"there can be no secret for {field} {value[:64]!a}: such a name is {pattern[1:-1]}"
                )
        return cls(tenant, connector, credential)

    @property
    def path(self) -> str:
        """The secret's path below the mount."""
        return f"connectors/{self.tenant}/{self.connector}/{self.credential}"

    def __str__(self) -> str:
        return f"credential {self.credential!r} of tenant {self.tenant!r} for connector {self.connector!r}"


class SecretFields(Mapping[str, JsonValue]):
    """The fields of one secret: read like a dict, shown as nothing, frozen.

    No `__dict__`, no pickle, and containers are handed out as copies: a connector that changes
    what it was given does not change what the next job gets.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, JsonValue]) -> None:
        self._fields = copy.deepcopy(dict(fields))

    def __getitem__(self, name: str) -> JsonValue:
        return copy.deepcopy(self._fields[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __repr__(self) -> str:
        return f"<SecretFields of {len(self._fields)} fields>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a secret is not pickled")


#: Fields that hold no secret in any secret of the contract: enumerations and public addresses.
#: Masking their values would black out words such as "service_account" in every log line.
PUBLIC_FIELDS: Final = frozenset({"type", "auth", "auth_uri", "token_uri", "login_url", "universe_domain"})
#: Shorter values are not masked: they would black out parts of innocent words.
MASKED_LENGTH: Final = 8


def secret_values(fields: Mapping[str, JsonValue]) -> Iterator[str]:
    """List the strings of a secret that must not show up in a log.

    A value of several lines (a private key) is listed by its lines, too: a log escapes the breaks
    between them, so the whole would never match. Lines in dashes (`-----BEGIN …`) are no secret.
    """
    for name, value in fields.items():
        if name not in PUBLIC_FIELDS:
            yield from _strings(value)


def _strings(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        for text in {value, *(line.strip() for line in value.splitlines())}:
            is_fence = text.startswith("-----") and "\n" not in text
            if len(text) >= MASKED_LENGTH and not is_fence:
                yield text
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)


def ignore_outcome(outcome: FetchOutcome) -> None:
    """Count nothing."""


class NoVault:
    """The source of a worker without a vault: it runs what needs no credential, and is ready."""

    available = True
    unavailable_reason = None

    def __init__(self, on_fetch: Callable[[FetchOutcome], None] = ignore_outcome) -> None:
        self._on_fetch = on_fetch

    async def start(self) -> None:
        """Do nothing: there is nothing to log in to."""

    async def close(self) -> None:
        """Do nothing."""

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, JsonValue]:
        """Refuse: without a vault there is no secret."""
        self._on_fetch(FetchOutcome.NOT_FOUND)
        name = CredentialName.checked(tenant, connector, credential)
        raise CredentialNotFound(f"no {name}: this worker has no vault; set CONNECTORS_VAULT_URL")

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Do nothing."""

    async def keep(self, rotation: Rotation) -> None:
        """Do nothing: the token lives as long as the process."""

    async def wait_available(self, timeout_s: float) -> bool:
        """Return at once: nothing can be unavailable."""
        return True
