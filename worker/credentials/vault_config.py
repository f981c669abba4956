"""Where the vault is, and what the worker proves itself with."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from worker.settings import SettingError, Settings, is_loopback

#: Where Kubernetes puts the pod's token.
SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
#: A secret id, or the JSON that `bao write -wrap-ttl=60s -format=json` prints, is far smaller.
_MAX_SECRET_BYTES: Final = 64 * 1024


class LoginRefused(Exception):
    """What we log in with cannot be read, or the vault does not accept it; one line that says what to do.

    Args:
        status: the vault's; None if nothing was sent.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class VaultAuthError(Exception):
    """A response-wrapped secret id was opened by another, or was made elsewhere: an alarm."""

    #: EX_NOPERM of sysexits.h.
    exit_code = 77


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """The connection's settings; fields are named as in `Settings`, less `vault_`.

    Raises:
        SettingError: a part is missing, or the way to the vault would be unencrypted.
    """

    url: str
    auth: Literal["approle", "kubernetes", "token"]
    role_id: str | None = None
    secret_id: SecretStr | None = None
    secret_id_file: Path | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    jwt_file: Path = SERVICE_ACCOUNT_TOKEN
    mount: str = "secret"
    namespace: str | None = None
    #: Trust beside the system's, for TLS.
    ca_file: Path | None = None
    plaintext_hosts: frozenset[str] = frozenset()
    #: Seconds for one call, from its first byte to its last.
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query:
            raise SettingError("CONNECTORS_VAULT_URL must be https://host[:port], without user or query")
        if parts.scheme == "http" and host not in self.plaintext_hosts and not is_loopback(host):
            raise SettingError(
                f"CONNECTORS_VAULT_URL: http:// to {host} is not encrypted; "
                "use https:// or name the host in CONNECTORS_PLAINTEXT_HOSTS"
            )
        if self.auth != "token" and not self.role_id:
            raise SettingError(f"CONNECTORS_VAULT_AUTH={self.auth} needs CONNECTORS_VAULT_ROLE_ID")
        if self.auth == "approle" and self.secret_id is None and self.secret_id_file is None:
            raise SettingError("CONNECTORS_VAULT_AUTH=approle needs CONNECTORS_VAULT_SECRET_ID_FILE")
        if self.auth == "token" and self.token is None and self.token_file is None:
            raise SettingError("CONNECTORS_VAULT_AUTH=token needs CONNECTORS_VAULT_TOKEN_FILE")
        # These end up in headers, where a line break would end one.
        if self.namespace is not None and not re.fullmatch(r"[\w./-]{1,255}", self.namespace, re.ASCII):
            raise SettingError(
                f"CONNECTORS_VAULT_NAMESPACE={self.namespace[:80]!r} is not a path of letters and digits"
            )

    def read_proof(self) -> SecretStr:
        """Read the secret id, token or pod's token, as it is now: a rotated file counts from the next login on.

        Raises:
            LoginRefused: it cannot be read.
        """
        if self.auth == "approle":
            text = _read("CONNECTORS_VAULT_SECRET_ID", self.secret_id, self.secret_id_file)
        elif self.auth == "token":
            text = _read("CONNECTORS_VAULT_TOKEN", self.token, self.token_file)
        else:
            text = _read("the pod's service account token", None, self.jwt_file)
        return SecretStr(text)


def _read(name: str, value: SecretStr | None, file: Path | None) -> str:
    if file is None:
        text = value.get_secret_value() if value is not None else ""
    else:
        name = f"{name}_FILE={file}" if name.isupper() else f"{name} ({file})"
        try:
            with file.open("rb") as opened:
                text = opened.read(_MAX_SECRET_BYTES).decode()
        except OSError as error:
            raise LoginRefused(f"{name} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise LoginRefused(f"{name} is not text") from None
    text = text.strip()
    # The whole ends up in a header or a body; what cannot stand there is no secret of a vault's.
    if not re.fullmatch(r"[\x21-\x7e]+|\{[\x20-\x7e\s]+\}", text):
        raise LoginRefused(f"{name} is empty, or holds white space")
    return text


def vault_config(settings: Settings) -> VaultConfig:
    """Return the part of the settings that the vault needs."""
    assert settings.vault_url is not None
    return VaultConfig(
        url=settings.vault_url,
        auth=settings.vault_login,
        role_id=settings.vault_role_id,
        secret_id=settings.vault_secret_id,
        secret_id_file=settings.vault_secret_id_file,
        token=settings.vault_token,
        token_file=settings.vault_token_file,
        mount=settings.vault_mount,
        namespace=settings.vault_namespace,
        ca_file=settings.ca_file,
        plaintext_hosts=settings.plaintext_hosts,
    )
