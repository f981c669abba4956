"""The ledger's database URL, parsed once; every reader of a part uses this."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

FORMS: Final = "sqlite:///path or postgresql://user:password@host/database"
#: libpq's names that are understood; another would be ignored in silence or break the first connect.
PARAMETERS: Final = ("application_name", "connect_timeout", "options", "sslmode", "target_session_attrs")
#: Ways of libpq to ask for encryption. All but the first are verified TLS here, as everywhere else.
SSL_MODES: Final = ("disable", "require", "verify-ca", "verify-full")
_SESSIONS: Final = ("any", "read-write", "primary", "prefer-standby", "standby", "read-only")
_MAX_CONNECT_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database, in parts.

    Raises:
        ValueError: in words that hold no piece of the URL but parameter names.
    """

    #: SQLite's file; None for PostgreSQL.
    file: Path | None = None
    host: str = ""
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self.file is not None

    @property
    def ssl_mode(self) -> str | None:
        """The encryption that the URL asks for; None if it says nothing."""
        return self.parameters.get("sslmode")

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the parts of a URL."""
        if url.startswith("sqlite:"):
            return cls(file=_file(url))
        if not url.startswith("postgresql://"):
            raise ValueError(f"must be {FORMS}")
        check_url(url)
        parts = urlsplit(url)
        database = unquote(parts.path.removeprefix("/"))
        if not parts.hostname or not database or "," in parts.netloc.rpartition("@")[2]:
            raise ValueError("must name one host and a database: postgresql://user:password@host/database")
        return cls(
            host=parts.hostname,
            port=parts.port,
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            database=database,
            parameters=_parameters(parts.query),
        )


def check_url(url: str) -> None:
    """Refuse a URL that parsers disagree about, because of a password that is not percent-encoded.

    Raises:
        ValueError: without any piece of the URL; those of urllib quote what they cannot read.
    """
    _, *rest = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)
    if "@" in "".join(rest):
        raise ValueError("a user or password with / ? # or @ must be percent-encoded: %2F %3F %23 %40")
    if "#" in url:
        raise ValueError("# starts a fragment, which means nothing here; in a password write %23")
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("its host or port cannot be read; [ ] : in a password are %5B %5D %3A") from None


def _file(url: str) -> Path:
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise ValueError(f"must be {FORMS}")
    if ":memory:" in path:
        raise ValueError(
            "a database in memory forgets at the worker's end which effects happened; name a file"
        )
    if "?" in path:
        raise ValueError("sqlite:///path takes no parameters")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError("there is no home directory to put in the place of ~; name the whole path") from None


def _parameters(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name in {"sslrootcert", "sslcert", "sslkey"}:
            raise ValueError(f"the parameter {name} is not read; name an authority in CONNECTORS_CA_FILE")
        if name not in PARAMETERS:
            raise ValueError(f"knows no parameter {name[:40]!a}; it knows {', '.join(PARAMETERS)}")
    for name, choices in (("sslmode", SSL_MODES), ("target_session_attrs", _SESSIONS)):
        if name in given and given[name] not in choices:
            raise ValueError(f"the parameter {name} must be one of {', '.join(choices)}")
    timeout = given.get("connect_timeout", "1")
    if not timeout.isascii() or not timeout.isdigit() or not 1 <= int(timeout) <= _MAX_CONNECT_TIMEOUT_S:
        raise ValueError(f"the parameter connect_timeout must be 1 to {_MAX_CONNECT_TIMEOUT_S} seconds")
    return given
