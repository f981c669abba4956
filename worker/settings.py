"""The settings: the only module that reads the environment."""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from connectors.sdk.http.address import Reach, reach_of
from connectors.sdk.http.egress import Egress
from connectors.sdk.runtime.publisher_rights import Publishers, RegularExpression
from schemas.job import MAX_BODY_BYTES
from worker.database_url import DatabaseUrl, check_url

if TYPE_CHECKING:
    from connectors.sdk.connector import Connector

PREFIX: Final = "CONNECTORS_"
#: Exit code for a wrong setting (EX_CONFIG of sysexits.h).
EXIT_CONFIG: Final = 78
#: How long a dead letter is kept: the queue's own TTL in `worker/broker/topology.py`.
DEAD_LETTER_TTL_HOURS: Final = 14 * 24.0
#: Stands for the data directory of a user without a home.
NO_HOME: Final = Path("~")
#: A queue's name that no rule would name: what matches it matches everything.
_ANY_QUEUE: Final = "some-other-service.orders.3f9c"
#: Our own connectors, which run unless CONNECTORS_ENABLED says otherwise; `dummy` is for development and tests.
OWN_CONNECTORS: Final = ("http", "google_calendar", "salesforce")


class SettingError(Exception):
    """A setting is wrong; the message is one line that names it and says what to do."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part for part in (piece.strip() for piece in value.split(",")) if part]
    return value


def _without_scheme_fault(url: str, schemes: tuple[str, ...]) -> str:
    form = f"must be {' or '.join(f'{scheme}://host' for scheme in schemes)}"
    if url.partition("://")[0].lower() not in schemes:
        raise ValueError(form)
    check_url(url)
    if not urlsplit(url).hostname:
        raise ValueError(form)
    return url


def _data_dir() -> Path:
    try:
        return user_data_path("connectors-service", appauthor=False)
    except RuntimeError:  # a user without a home; `directory` says so if it is needed
        return NO_HOME


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[frozenset[str], NoDecode, BeforeValidator(_split)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """The settings by their names in the environment, without the prefix CONNECTORS_."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    rabbitmq_url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        validation_alias=AliasChoices("CONNECTORS_RABBITMQ_URL", "RABBITMQ_URL"),
    )
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "connectors"
    enabled: Names = OWN_CONNECTORS
    concurrency: Annotated[int, Field(ge=1, le=65535)] = 100
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    max_body_bytes: Annotated[int, Field(ge=1)] = MAX_BODY_BYTES
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    reply_exchange: str = ""
    reply_to_pattern: RegularExpression | None = None
    publishers: Publishers | None = None
    strict: bool = False
    data_dir: Path = Field(default_factory=_data_dir)

    vault_url: str | None = Field(
        default=None, validation_alias=AliasChoices("CONNECTORS_VAULT_URL", "VAULT_ADDR")
    )
    vault_auth: Literal["approle", "kubernetes", "token"] | None = None
    vault_role_id: str | None = None
    vault_secret_id: SecretStr | None = None
    vault_secret_id_file: Path | None = None
    vault_token: SecretStr | None = None
    vault_token_file: Path | None = None
    vault_mount: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")] = "secret"
    vault_namespace: str | None = None

    credentials: Literal["vault", "database"] = "vault"
    keyring_file: Path | None = None
    database_url: SecretStr | None = None
    database_connections: Annotated[int, Field(ge=1, le=1000)] = 8
    ledger_ttl_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 720.0
    tenant_concurrency: Annotated[int, Field(ge=1)] | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 17012

    ca_file: Path | None = None
    plaintext_hosts: Hosts = frozenset()
    egress_allow: Names = ()
    proxy_url: SecretStr | None = None
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("rabbitmq_url")
    @classmethod
    def _amqp(cls, value: SecretStr) -> SecretStr:
        url = _without_scheme_fault(value.get_secret_value(), ("amqp", "amqps"))
        if "no_verify_ssl" in url:
            raise ValueError("no_verify_ssl is refused; name your authority in CONNECTORS_CA_FILE")
        return value

    #: What is set for connectors, which declare the names themselves.
    _of_connectors: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("egress_allow")
    @classmethod
    def _inside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Egress.of(value)
        return value

    @field_validator("proxy_url")
    @classmethod
    def _proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _without_scheme_fault(value.get_secret_value(), ("http", "https"))
        return value

    @field_validator("vault_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return value if value is None else _without_scheme_fault(value, ("https", "http")).rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            DatabaseUrl.parse(value.get_secret_value())
        return value

    @field_validator("ledger_ttl_hours")
    @classmethod
    def _outlives_dead_letters(cls, value: float) -> float:
        if value < DEAD_LETTER_TTL_HOURS:
            raise ValueError(
                f"must be {DEAD_LETTER_TTL_HOURS:g} at least: a dead letter is kept that long, and replayed "
                "without its row in the ledger it would have its effect twice"
            )
        return value

    @field_validator("enabled")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names no connector; unset it to run our own, or name some, comma-separated")
        return tuple(dict.fromkeys(value))

    @field_validator("ca_file", "vault_secret_id_file", "vault_token_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not os.access(value, os.R_OK):
            raise ValueError(f"{value} cannot be read; check the path and its permissions")
        return value

    @field_validator("ca_file")
    @classmethod
    def _authority(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
            except OSError:
                raise ValueError("holds no certificate in PEM form") from None
        return value

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        for name, url, plain in (
            ("rabbitmq_url", self.rabbitmq_url.get_secret_value(), "amqp"),
            ("vault_url", self.vault_url or "", "http"),
        ):
            self._check_encrypted(name, url, plain)
        if self.database_url is not None:
            database = DatabaseUrl.parse(self.database_url.get_secret_value())
            if database.ssl_mode == "disable" and not self.allows_plaintext(database.host):
                raise ValueError(
                    f"{PREFIX}DATABASE_URL: sslmode=disable to {database.host} is not encrypted; "
                    f"leave it out, or name the host in {PREFIX}PLAINTEXT_HOSTS"
                )
        return self

    @model_validator(mode="after")
    def _keyring(self) -> Self:
        if self.credentials == "database" and self.keyring_file is None:
            raise ValueError(
                f"{PREFIX}CREDENTIALS=database needs {PREFIX}KEYRING_FILE: lines `id base64(32 bytes)`, mode 0600"
            )
        return self

    @model_validator(mode="after")
    def _vault_login(self) -> Self:
        if self.vault_url is None:
            return self
        ways = {
            "approle": self.vault_role_id and (self.vault_secret_id or self.vault_secret_id_file),
            "kubernetes": self.vault_role_id,
            "token": self.vault_token or self.vault_token_file,
        }
        wanted = {
            "approle": f"{PREFIX}VAULT_ROLE_ID and {PREFIX}VAULT_SECRET_ID_FILE",
            "kubernetes": f"{PREFIX}VAULT_ROLE_ID",
            "token": f"{PREFIX}VAULT_TOKEN_FILE",
        }
        if self.vault_auth is None:
            if not (ways["approle"] or ways["token"]):
                raise ValueError(
                    f"{PREFIX}VAULT_URL (or VAULT_ADDR) is set without a way to log in; "
                    f"set {PREFIX}VAULT_AUTH, and for approle {PREFIX}VAULT_ROLE_ID and {PREFIX}VAULT_SECRET_ID_FILE"
                )
        elif not ways[self.vault_auth]:
            raise ValueError(f"{PREFIX}VAULT_AUTH={self.vault_auth} needs {wanted[self.vault_auth]}")
        return self

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if self.strict and (gaps := self.gaps):
            raise ValueError(f"{PREFIX}STRICT is set, and {'; '.join(gaps)}")
        return self

    @property
    def gaps(self) -> list[str]:
        """What is open to every publisher, or to who may write a credential; each with the setting that closes it."""
        found = []
        if self.publishers is None:
            found.append(f"any publisher acts for any tenant: set {PREFIX}PUBLISHERS")
        elif self.broker_user in self.publishers:
            found.append(
                f"the publisher {self.broker_user!r} has the worker's own broker user, whose headers are believed: "
                "give it a user of its own"
            )
        if self.reply_to_pattern is not None and re.fullmatch(self.reply_to_pattern, _ANY_QUEUE):
            found.append(f"replies may go to any queue: {PREFIX}REPLY_TO_PATTERN matches every name")
        if self.publishers is None and self.reply_to_pattern is None and not self.strict:
            found.append(f"replies may go to any queue: set {PREFIX}PUBLISHERS or {PREFIX}REPLY_TO_PATTERN")
        if self.egress.allows_loopback:
            found.append(f"providers may be on this machine: take loopback out of {PREFIX}EGRESS_ALLOW")
        return found

    @property
    def egress(self) -> Egress:
        """What providers may be inside of."""
        return Egress.of(self.egress_allow)

    @property
    def vault_login(self) -> Literal["approle", "kubernetes", "token"]:
        """The login method: as set, else the one that the other settings allow."""
        return self.vault_auth or ("approle" if self.vault_role_id else "token")

    @property
    def tenant_slots(self) -> int:
        """Slots that one tenant may hold in a queue."""
        return min(self.tenant_concurrency or max(1, self.concurrency // 2), self.concurrency)

    @property
    def directory(self) -> Path:
        """The data directory, for what needs one.

        Raises:
            SettingError: none is set, and the user has no home.
        """
        if self.data_dir == NO_HOME:
            raise SettingError(f"{PREFIX}DATA_DIR is not set, and this user has no home directory: set it")
        return self.data_dir

    @property
    def ledger_url(self) -> str:
        """The ledger's database, SQLite in the data directory by default.

        Raises:
            SettingError: there is no data directory.
        """
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.directory / 'ledger.db'}"

    @property
    def broker_user(self) -> str:
        """The broker user we log in as."""
        return unquote(urlsplit(self.rabbitmq_url.get_secret_value()).username or "guest")

    @property
    def trusted_users(self) -> set[str]:
        """The broker users whose headers of ours count: our own, and the operators'."""
        operators = {user for user, rights in (self.publishers or {}).items() if rights.may_replay}
        return {self.broker_user, *operators}

    def of_connector(self, connector: "Connector[Any]") -> dict[str, str]:
        """Return what is set for one connector, by the names that it declares.

        Raises:
            SettingError: a value is wrong.
        """
        found = {}
        for each in connector.declared_settings:
            name = f"{connector.name}_{each.name}"
            if (value := self._of_connectors.get(name)) is None:
                continue
            try:
                found[each.name] = _without_scheme_fault(value, ("https", "http")).rstrip("/")
                self._check_provider(name, value)
            except ValueError as error:
                issue = str(error).removeprefix(f"{PREFIX}{name.upper()}: ")
                raise SettingError(f"{PREFIX}{name.upper()}={_masked_url(value)[:80]!r}: {issue}") from None
        return found

    def is_set(self, name: str) -> bool:
        """Return whether a setting was given, by its name in lower case without the prefix."""
        return name in self.model_fields_set or name in self._of_connectors

    def _check_encrypted(self, name: str, url: str, plain: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == plain and not self.allows_plaintext(parts.hostname or ""):
            raise ValueError(
                f"{PREFIX}{name.upper()}: {plain}:// to {parts.hostname} is not encrypted; "
                f"use {plain}s://, or name the host in {PREFIX}PLAINTEXT_HOSTS"
            )

    def _check_provider(self, name: str, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "http" and reach_of(parts.hostname or "", self.egress) is Reach.PUBLIC:
            raise ValueError(
                f"{PREFIX}{name.upper()}: http:// to {parts.hostname} is not encrypted; "
                f"use https://, or allow the host in {PREFIX}EGRESS_ALLOW"
            )

    def allows_plaintext(self, host: str) -> bool:
        """Return whether an unencrypted connection to this host is accepted."""
        return host in self.plaintext_hosts or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or its address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**given: Any) -> Settings:
    """Read the settings from the environment and `.env`; keyword arguments take precedence.

    Raises:
        SettingError: one line that names the setting.
    """
    ours = {name: value for name, value in given.items() if name in Settings.model_fields}
    try:
        settings = Settings(**ours)
        settings._of_connectors = _others() | {
            name: str(value) for name, value in given.items() if name not in ours
        }
        return settings
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        issue = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise SettingError(issue) from None
        field = str(first["loc"][0])
        name = field if field.isupper() else f"{PREFIX}{field.upper()}"
        name = _ALSO_NAMED.get(name, name)
        where = ".".join(map(str, first["loc"][1:]))
        raise SettingError(f"{name}{_shown(field)}{f' ({where})' if where else ''}: {issue}") from None
    except ValueError as error:  # a value that should have been JSON
        raise SettingError(" ".join(str(error).split())[:300]) from None


#: Settings that are also read from a second variable.
_ALSO_NAMED: Final[Mapping[str, str]] = {
    "CONNECTORS_RABBITMQ_URL": "CONNECTORS_RABBITMQ_URL (or RABBITMQ_URL)",
    "CONNECTORS_VAULT_URL": "CONNECTORS_VAULT_URL (or VAULT_ADDR)",
}


def _shown(field: str) -> str:
    """Return a wrong value for the message, unless it is secret."""
    name = field.lower().removeprefix(PREFIX.lower())
    model_field = Settings.model_fields.get(name)
    if model_field is None or "SecretStr" in str(model_field.annotation):
        return ""
    value = os.environ.get(f"{PREFIX}{name.upper()}")
    return "" if value is None else f"={_masked_url(value)[:80]!r}"


def data_directory() -> Path:
    """Return the user's own data directory, whatever is set: programs that are downloaded are kept there.

    Raises:
        SettingError: the user has no home.
    """
    found = _data_dir()
    if found == NO_HOME:
        raise SettingError("this user has no home directory to keep downloaded programs in: set HOME")
    return found


def _others() -> dict[str, str]:
    """Return what has our prefix in the environment or `.env` and is not a setting of the worker's own."""
    found = {**dotenv_values(".env"), **os.environ}
    names = {name: name.removeprefix(PREFIX).lower() for name in found if name.startswith(PREFIX)}
    return {
        name: found[variable] or ""
        for variable, name in names.items()
        if found[variable] and name not in Settings.model_fields
    }


def unknown_names(
    connectors: Iterable["Connector[Any]"] = (),
    *,
    installed: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Return the variables with our prefix that are not settings: most likely a typo.

    Args:
        connectors: those that are loaded; what they declare is known.
        installed: names of all that are installed; what begins with one that is not loaded may be known to it.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    loaded = {connector.name for connector in connectors}
    known |= {
        f"{PREFIX}{connector.name}_{each.name}".upper()
        for connector in connectors
        for each in connector.declared_settings
    }
    others = tuple(f"{PREFIX}{name}_".upper() for name in installed if name not in loaded)
    return sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in known and not name.startswith(others)
    )


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings in force with every secret masked, by their names in the environment."""
    shown = settings.model_dump(mode="json")
    for name in shown:
        value = getattr(settings, name)
        if name.endswith("_url") and value is not None:
            shown[name] = _masked_url(value.get_secret_value() if isinstance(value, SecretStr) else value)
        elif isinstance(value, SecretStr):
            shown[name] = "******"
    shown["database_url"] = _masked_url(settings.ledger_url)
    shown |= {name: _masked_url(value) for name, value in settings._of_connectors.items()}
    return {f"{PREFIX}{name.upper()}": value for name, value in shown.items()}


def _masked_url(url: str) -> str:
    # To the last @: a password that is not percent-encoded may hold any character.
    url = re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:******@", url, flags=re.DOTALL)
    return re.sub(r"(?<=[?&])(\w*password)=[^&]*", r"\1=******", url)
