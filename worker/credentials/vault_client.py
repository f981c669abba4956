"""The edge to the vault, synchronous: the only file that imports hvac.

A file apart from `credentials`, so that what the executor and the cache import stays free of hvac
and requests, and so that nothing of theirs gets past it: every failure is reworded here in our
own words, since theirs carry URLs, answers and, in `exc.request.headers`, the token.

    CredentialNotFound, CredentialInvalid   the vault's answer for one secret
    VaultUnavailable                        no answer, or none that a vault would give
    VaultTokenRefused                            403: the policy, or a token that is over; is_alive tells
    LoginRefused                            the vault does not accept what we log in with
    VaultAuthError                          a secret id may have been intercepted
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import hvac
from pydantic import JsonValue, SecretStr

from connectors.sdk.errors import CredentialInvalid, CredentialNotFound
from connectors.sdk.http.refresh_tokens import Rotation
from worker.credentials.source import CredentialName, SecretFields, VaultUnavailable
from worker.credentials.vault_config import LoginRefused, VaultAuthError, VaultConfig
from worker.credentials.vault_http import (
    MAX_ANSWER_BYTES,
    AnswerTooLarge,
    VaultHttp,
    VaultRefusal,
    ask,
    json_object,
)
from worker.settings import SettingError

#: Seconds between questions that a standby which lags answers with 412.
CATCH_UP_S: Final = (0.1, 0.3, 0.6)
#: Below `connectors/`, and no name of the contract's: read to see whether secrets can be.
_NO_NAME: Final = "connectors/_/_/_"
#: Looks at a secret that somebody else keeps changing, before it is left to them.
MAX_COLLISIONS: Final = 3
_WRAPPING_TOKEN: Final = re.compile(r"(?:hvs\.|s\.)[A-Za-z0-9._-]{20,}")
_CREATION_PATH: Final = re.compile(r"auth/approle/role/[\w.-]+/secret-id")


class VaultTokenRefused(Exception):
    """The vault answered 403."""


@dataclass(frozen=True, slots=True)
class Login:
    """A token, and how long the vault lets it live."""

    token: SecretStr
    #: Seconds from `began_at`; 0 never ends.
    lease_s: float
    #: Seconds that a renewal asks for.
    full_lease_s: float
    renewable: bool
    #: Each use counts: it is kept for jobs, and nothing is asked with it only to see.
    is_limited: bool
    #: Monotonic, from before the vault was asked: we never think the lease longer than the vault does.
    began_at: float


class VaultClient:
    """Ask the vault, one blocking call at a time; safe to use from several threads.

    Nothing is taken from the surroundings: not VAULT_TOKEN, no client certificate, no proxy.
    Redirects are refused, so a token reaches the host of CONNECTORS_VAULT_URL alone. hvac resolves
    `..` in a path; only the parts of a CredentialName reach one here.
    `VaultSession` runs the calls in its threads, `VaultOperator` in the operator's command; its
    creator closes a client.
    """

    def __init__(self, config: VaultConfig, *, connections: int = 1) -> None:
        self._config = config
        self._http = VaultHttp(
            config.url, config.ca_file, timeout_s=config.timeout_s, connections=connections
        )
        #: The wrapping token opened last, and the secret id it held: it opens but once.
        self._unwrapped: tuple[str, SecretStr] | None = None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def data_path(self, name: CredentialName) -> str:
        """Return the path that a policy must grant."""
        return f"{self._config.mount}/data/{name.path}"

    def read_proof(self) -> SecretStr:
        """Return what to log in with, as it is now.

        Raises:
            LoginRefused: it cannot be read.
        """
        return self._config.read_proof()

    def log_in(self, proof: SecretStr) -> Login:
        """Log in and return the token.

        Raises:
            LoginRefused, VaultAuthError, VaultUnavailable.
        """
        config, client, began_at = self._config, self._client(None), time.monotonic()
        try:
            if config.auth == "token":
                return self._adopt(proof, began_at)
            if config.auth == "kubernetes":
                jwt = proof.get_secret_value()
                answer = ask(lambda: client.auth.kubernetes.login(config.role_id, jwt, use_token=False))
            else:
                secret_id = self._secret_id(proof.get_secret_value()).get_secret_value()
                answer = ask(lambda: client.auth.approle.login(config.role_id, secret_id, use_token=False))
        except VaultRefusal as refusal:
            if refusal.status not in (400, 401, 403, 404):
                raise refusal.unavailable() from None
            remedy = f"{_LOGIN_REMEDIES[config.auth]} (HTTP {refusal.status})"
            raise LoginRefused(remedy, refusal.status) from None
        return _login(answer, began_at)

    def renew(self, login: Login) -> Login:
        """Prolong a login; the vault may give less than asked.

        Raises:
            VaultTokenRefused: it is over, or cannot be renewed.
            VaultUnavailable.
        """
        client, began_at = self._client(login.token), time.monotonic()
        increment = f"{max(1, round(login.full_lease_s))}s"
        try:
            renewed = _login(ask(lambda: client.auth.token.renew_self(increment=increment)), began_at)
        except VaultRefusal as refusal:
            # Past its maximum age OpenBao 2.7 says 500, at other ends 400 or 403. Where the vault itself
            # is in trouble, the login that follows will tell.
            raise refusal.unavailable() if refusal.status in (429, 503) else VaultTokenRefused from None
        return replace(renewed, full_lease_s=login.full_lease_s)

    def is_alive(self, token: SecretStr) -> bool:
        """Return whether the token is alive: a read answers 403 either way.

        Raises:
            VaultUnavailable.
        """
        try:
            ask(self._client(token).auth.token.lookup_self)
        except VaultRefusal as refusal:
            if refusal.status == 403:
                return False
            raise refusal.unavailable() from None
        return True

    def check_health(self) -> None:
        """Ask whether the vault is there and open; needs no token, and knows no namespace.

        Raises:
            VaultUnavailable: with the reason.
        """
        client = self._client(None, in_namespace=False)
        try:
            health = ask(lambda: client.sys.read_health_status(method="GET"))
        except VaultRefusal as refusal:
            # Standby nodes pass a read on to the active one. A rate limit is 429, too, but says no more.
            if refusal.status in (429, 473, 474) and refusal.answer.get("sealed") is False:
                return
            raise refusal.unavailable() from None
        if health.get("sealed") is not False:
            raise VaultUnavailable("sys/health of CONNECTORS_VAULT_URL does not say whether it is sealed")

    def probe(self, token: SecretStr) -> str | None:
        """Ask for a secret that cannot exist, as a job asks for one that does.

        Returns:
            What is wrong with the mount; None if a secret could be read.

        Raises:
            VaultTokenRefused, VaultUnavailable.
        """
        kv, mount = self._kv(token), self._config.mount
        try:
            answer = ask(
                lambda: kv.read_secret_version(_NO_NAME, mount_point=mount, raise_on_deleted_version=True)
            )
        except VaultRefusal as refusal:
            if refusal.status == 403:
                raise VaultTokenRefused from None
            if refusal.status != 404:
                raise refusal.unavailable() from None
            return self._no_mount() if _is_no_mount(refusal) else None
        _part(_part(answer, "data"), "metadata")  # of a secret that is there after all
        return None

    def check_mount(self, token: SecretStr) -> None:
        """Refuse a mount that is not KV version 2; pass if the policy does not let us know.

        Version 1 answers reads of a missing secret alike, and takes a write to `data/…` for a secret.

        Raises:
            SettingError: names the kind of mount.
        """
        client, mount = self._client(token), self._config.mount
        try:
            about = _part(ask(lambda: client.read(f"sys/internal/ui/mounts/{mount}")), "data")
        except (VaultRefusal, VaultUnavailable):
            return
        kind, options = about.get("type"), about.get("options")
        version = options.get("version", "1") if isinstance(options, dict) else "1"
        if kind == "kv" and version == "2":
            return
        seen = (
            f"a KV engine of version {version}"
            if kind in {"kv", "generic"}
            else f"an engine of type {kind!a:.40}"
        )
        raise SettingError(
            f"CONNECTORS_VAULT_MOUNT={mount} is {seen}; KV version 2 is needed. Nothing was read or written; "
            "upgrade it (`vault kv enable-versioning`) or name another mount"
        )

    def read(self, token: SecretStr, name: CredentialName) -> SecretFields:
        """Read the newest version of one secret.

        Raises:
            CredentialNotFound: missing, deleted or destroyed.
            CredentialInvalid: no object of fields.
            VaultTokenRefused, VaultUnavailable.
        """
        return SecretFields(self._read_version(token, name)[0])

    def _read_version(self, token: SecretStr, name: CredentialName) -> tuple[dict[str, JsonValue], int]:
        """Read a secret's fields, and the number of their version."""
        kv, mount = self._kv(token), self._config.mount
        try:
            answer = _ask_until_caught_up(
                lambda: kv.read_secret_version(name.path, mount_point=mount, raise_on_deleted_version=True)
            )
        except AnswerTooLarge:
            raise CredentialInvalid(f"{name} is larger than {MAX_ANSWER_BYTES} bytes") from None
        except VaultRefusal as refusal:
            raise self._secret_refused(refusal, name) from None
        version = _part(answer, "data")
        if "data" not in version or "metadata" not in version:
            raise VaultUnavailable("the vault's answer for a secret has no `data` and `metadata`")
        if not isinstance(version["data"], dict):
            raise CredentialInvalid(f"{name} is not an object of fields: put it again")
        return version["data"], int(_part(version, "metadata").get("version", 0))

    def may_write(self, token: SecretStr, name: CredentialName) -> bool:
        """Return whether the policy lets the token store a new version; False if it does not let us know.

        Raises:
            VaultUnavailable.
        """
        client, path = self._client(token), self.data_path(name)
        try:
            answer = ask(lambda: client.write_data("sys/capabilities-self", data={"paths": [path]}))
        except VaultRefusal as refusal:
            if refusal.status == 403:
                return False
            raise refusal.unavailable() from None
        capabilities = _part(answer, "data").get(path)
        return isinstance(capabilities, list) and not {"update", "root"}.isdisjoint(map(str, capabilities))

    def write(self, token: SecretStr, name: CredentialName, fields: Mapping[str, JsonValue]) -> int:
        """Store one secret as a new version, and return the version's number.

        Raises:
            VaultTokenRefused, VaultUnavailable.
        """
        kv, mount, secret = self._kv(token), self._config.mount, dict(fields)
        try:
            answer = ask(lambda: kv.create_or_update_secret(name.path, secret=secret, mount_point=mount))
        except VaultRefusal as refusal:
            raise self._secret_refused(refusal, name) from None
        return int(_part(answer, "data").get("version", 0))

    def replace(self, token: SecretStr, name: CredentialName, rotation: Rotation) -> bool:
        """Put the newest token where the secret still holds one of the older; False where it does not.

        By check-and-set: a secret that is put meanwhile wins, and is looked at again.

        Raises:
            CredentialNotFound, CredentialInvalid: there is no such secret any more.
            VaultTokenRefused, VaultUnavailable.
        """
        kv, mount = self._kv(token), self._config.mount
        older = {each.get_secret_value() for each in rotation.older}
        for _ in range(MAX_COLLISIONS):
            fields, version = self._read_version(token, name)
            if fields.get(rotation.field) not in older:
                return False
            secret = {**fields, rotation.field: rotation.newest.get_secret_value()}
            try:
                ask(
                    partial(
                        kv.create_or_update_secret, name.path, secret=secret, cas=version, mount_point=mount
                    )
                )
            except VaultRefusal as refusal:
                if refusal.status == 400 and "check-and-set" in str(refusal.answer.get("errors")):
                    continue
                raise self._secret_refused(refusal, name) from None
            return True
        return False

    def names(self, token: SecretStr, *folders: str) -> list[str]:
        """List what lies below `connectors/` and these folders, one level; folders end in a slash.

        Args:
            folders: checked parts of a CredentialName.

        Raises:
            VaultTokenRefused, VaultUnavailable.
        """
        kv, mount, path = self._kv(token), self._config.mount, "/".join(("connectors", *folders))
        try:
            keys = _part(ask(lambda: kv.list_secrets(path, mount_point=mount)), "data").get("keys", [])
        except VaultRefusal as refusal:
            if refusal.status == 404:
                return []
            raise self._secret_refused(refusal, None) from None
        return sorted(str(key) for key in keys)

    def delete(self, token: SecretStr, name: CredentialName) -> None:
        """Remove one secret with all its versions.

        Raises:
            CredentialNotFound: there is none.
            VaultTokenRefused, VaultUnavailable.
        """
        kv, mount = self._kv(token), self._config.mount
        try:
            ask(lambda: kv.read_secret_metadata(name.path, mount_point=mount))
            ask(lambda: kv.delete_metadata_and_all_versions(name.path, mount_point=mount))
        except VaultRefusal as refusal:
            raise self._secret_refused(refusal, name) from None

    def _client(self, token: SecretStr | None, *, in_namespace: bool = True) -> hvac.Client:
        # Built anew for each call (0.1 ms): a token that is replaced meanwhile changes nothing here.
        return hvac.Client(
            url=self._config.url.rstrip("/"),
            token="" if token is None else token.get_secret_value(),  # None would mean VAULT_TOKEN
            cert=("", ""),  # None would mean VAULT_CLIENT_CERT
            verify=True,  # None would mean VAULT_CACERT
            allow_redirects=False,
            session=self._http.session(),
            namespace=self._config.namespace if in_namespace else None,
        )

    def _kv(self, token: SecretStr) -> Any:
        return self._client(token).secrets.kv.v2

    def _adopt(self, token: SecretStr, began_at: float) -> Login:
        about = _part(ask(self._client(token).auth.token.lookup_self), "data")
        lease_s, full_lease_s = _seconds(about.get("ttl")), _seconds(about.get("creation_ttl"))
        renewable, is_limited = about.get("renewable") is True, bool(about.get("num_uses"))
        return Login(token, lease_s, full_lease_s or lease_s, renewable, is_limited, began_at)

    def _secret_id(self, given: str) -> SecretStr:
        wrapping = given
        if given.startswith("{"):  # as `bao write -wrap-ttl=60s -format=json` prints it
            wrapping = str(_part(json_object(given.encode()) or {}, "wrap_info").get("token"))
        if not _WRAPPING_TOKEN.fullmatch(wrapping):
            return SecretStr(given)
        if self._unwrapped is None or self._unwrapped[0] != wrapping:
            self._unwrapped = (wrapping, self._unwrap(wrapping))
        return self._unwrapped[1]

    def _unwrap(self, wrapping: str) -> SecretStr:
        """Open a response-wrapped secret id, after checking that the vault made it as one."""
        anyone, bearer = self._client(None), self._client(SecretStr(wrapping))
        namespace = f"{self._config.namespace.strip('/')}/" if self._config.namespace else ""
        try:
            about = ask(lambda: anyone.write_data("sys/wrapping/lookup", data={"token": wrapping}))
            made_at = str(_part(about, "data").get("creation_path")).removeprefix(namespace)
            if not _CREATION_PATH.fullmatch(made_at):
                raise VaultAuthError(
                    f"the wrapping token given as secret id was made at {made_at[:200]!a}, not by an "
                    "AppRole: somebody may have put it in the place of ours; issue a new secret id"
                )
            opened = _part(ask(bearer.sys.unwrap), "data").get("secret_id")
        except VaultRefusal as refusal:
            if refusal.status not in (400, 403):
                raise refusal.unavailable() from None
            raise VaultAuthError(
                "the wrapping token given as secret id is not valid: used already, or expired. Unless "
                "this worker used it itself before a restart, the secret id may have been intercepted: "
                "revoke it, look into the vault's audit log, and issue a new one"
            ) from None
        if not isinstance(opened, str):
            raise VaultUnavailable("the vault's answer to sys/wrapping/unwrap holds no secret id")
        return SecretStr(opened)

    def _secret_refused(self, refusal: "VaultRefusal", name: CredentialName | None) -> Exception:
        if refusal.status == 403:
            return VaultTokenRefused()
        if refusal.status != 404 or name is None:
            return refusal.unavailable()
        version = refusal.answer.get("data")
        metadata = version.get("metadata") if isinstance(version, dict) else None
        if isinstance(metadata, dict):
            what = "destroyed" if metadata.get("destroyed") else "deleted"
            return CredentialNotFound(f"{name} is {what}: put it again with `connectors credentials put`")
        if _is_no_mount(refusal):
            return CredentialNotFound(f"no {name}: {self._no_mount()}")
        return CredentialNotFound(f"no {name}: store it with `connectors credentials put`")

    def _no_mount(self) -> str:
        return f"the vault has no secrets at CONNECTORS_VAULT_MOUNT={self._config.mount}"


_LOGIN_REMEDIES: Final = {
    "approle": "the vault refuses the AppRole login: CONNECTORS_VAULT_ROLE_ID is wrong, or the secret id "
    "is wrong, used up or expired, or refused logins have locked the role for a while",
    "kubernetes": "the vault refuses the Kubernetes login: check CONNECTORS_VAULT_ROLE_ID and that the "
    "role is bound to this pod's service account",
    "token": "the vault refuses the token of CONNECTORS_VAULT_TOKEN or its file: it is wrong, revoked or "
    "expired",
}


def _part(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = answer.get(name)
    if not isinstance(part, dict):
        raise VaultUnavailable(f"an answer of CONNECTORS_VAULT_URL has no object {name!r}")
    return part


def _ask_until_caught_up(call: Callable[[], Any]) -> Mapping[str, Any]:
    """Ask again while a standby answers 412: it has not seen yet what our token was given after."""
    for pause_s in CATCH_UP_S:
        try:
            return ask(call)
        except VaultRefusal as refusal:
            if refusal.status != 412:
                raise
        time.sleep(pause_s)
    return ask(call)


def _is_no_mount(refusal: VaultRefusal) -> bool:
    return "no handler for route" in str(refusal.answer.get("errors"))


def _login(answer: Mapping[str, Any], began_at: float) -> Login:
    auth = _part(answer, "auth")
    token, lease_s = auth.get("client_token"), _seconds(auth.get("lease_duration"))
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise VaultUnavailable("the vault's answer to a login holds no token")
    renewable, is_limited = auth.get("renewable") is True, bool(auth.get("num_uses"))
    return Login(SecretStr(token), lease_s, lease_s, renewable, is_limited, began_at)


def _seconds(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise VaultUnavailable("the vault's answer to a login holds no lease")
    return float(value)
