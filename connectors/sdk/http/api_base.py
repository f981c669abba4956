"""The API that a credential or a setting names, and what goes to it alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from connectors.sdk.errors import CredentialInvalid, InvalidParams, Sent
from connectors.sdk.http.address import RefusedAddress, Target, read_host, read_url
from connectors.sdk.http.call import Auth
from connectors.sdk.http.request import Headers, encode_query


@dataclass(frozen=True, slots=True)
class ApiBase:
    """An API's base URL, with the credential's part of each request to it."""

    target: Target
    headers: Headers = field(repr=False)
    #: Written on the wire alone.
    secret_query: str = field(repr=False)
    auth: Auth | None = field(repr=False)
    #: Hosts (`host` or `host:port`) that a credential or a setting names.
    named: frozenset[str]

    @classmethod
    def read(
        cls,
        base_url: str,
        *,
        headers: Headers,
        query: Mapping[str, SecretStr],
        auth: Auth | None,
        allowed_hosts: Iterable[str],
    ) -> "ApiBase":
        """Return the base of a URL.

        Raises:
            CredentialInvalid: the URL or a host cannot be one.
        """
        try:
            target = read_url(base_url)
            named = frozenset({target.netloc, *map(read_host, allowed_hosts)})
        except RefusedAddress as error:
            raise CredentialInvalid(f"the API's URL {error}", sent=Sent.NO) from None
        secrets = encode_query({name: value.get_secret_value() for name, value in query.items()})
        return cls(target, headers, secrets, auth, named)

    def owns(self, target: Target) -> bool:
        """Return whether a URL is of this API's origin."""
        return target.origin == self.target.origin

    def url_of(self, path: str) -> str:
        """Return the URL of a path below the base; an absolute one stays as it is.

        Raises:
            InvalidParams: it is neither.
        """
        if path.startswith(("https://", "http://")):
            return path
        root = self.target.url.partition("?")[0]
        if path.startswith("/"):
            root = root.rstrip("/")
        elif path and not path.startswith("?"):
            raise InvalidParams.field("url", "must be absolute, or a path that begins with /")
        return root + path
