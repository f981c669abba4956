"""Which URL may be called, and which address it may lead to.

The rule, decided by who wrote the host, never by who asks:

    host                                   written by          http    https   may lead to
    any                                    anybody             no      yes     public addresses
    in CONNECTORS_EGRESS_ALLOW:
      localhost, 127.0.0.0/8, [::1]        credential/setting  yes     yes     loopback
      another host or address              credential/setting  yes     yes     loopback, private, public

Nothing inside is open by default: a credential document is a tenant's, and what it names may be the worker's own vault.
A host that only a job's parameters or a provider's answer (a redirect) named is "anybody's", so a
job reaches nothing inside. A public-looking name that resolves to 127.0.0.1 stays refused even
if a credential names it: loopback has to be written as loopback (rebinding). Link-local and
metadata addresses are refused for all.

Spellings are read by one strict pattern and sent as read, so that no second parser can see another
host in them: ASCII alone, no userinfo, no backslash, no trailing dot, no number that means an
address (`127.1`, `0x7f000001`, `2130706433`), no port that belongs to another protocol.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

import idna

from connectors.sdk.http.egress import Egress

Address = IPv4Address | IPv6Address

#: Characters of a whole URL. Servers commonly stop at 8 KiB; a few read 16.
MAX_URL_CHARS: Final = 16_384

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
#: RFC 3986: everything a URL may hold once it is encoded; `%` only before two hex digits.
_ENCODED = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: A last label that a resolver would take for a number: the host must then be a plain IPv4 address.
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")

#: Ports of other protocols, as browsers refuse them (the Fetch standard's list): a request there
#: would speak to a mail or shell server.
_OTHER_PROTOCOLS: Final = frozenset(
    {0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95}
    | {101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179}
    | {389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601}
    | {636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566}
    | {6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)

_LOOPBACK_V4: Final = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6: Final = IPv6Address("::1")
#: What an operator's own network may use; reached only through CONNECTORS_EGRESS_ALLOW.
_PRIVATE_V4: Final = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
_PRIVATE_V6: Final = IPv6Network("fc00::/7")
#: The rest of the special-purpose registry. `ipaddress` alone will not do: on 3.11 it calls
#: 224.0.0.1, 192.0.0.192 and 64:ff9b::a9fe:a9fe global.
_SPECIAL_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
#: Clouds answer with credentials here, some at addresses that look public or merely private.
_METADATA: Final[frozenset[Address]] = frozenset(
    map(ip_address, ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"))
)
#: All that is routed as unicast on the IPv6 internet; what is not in it is refused.
_UNICAST_V6: Final = IPv6Network("2000::/3")
#: IETF assignments with Teredo, documentation, 6to4, documentation.
_SPECIAL_V6: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
#: DNS64 writes an IPv4 address behind this prefix; the address inside decides.
_NAT64: Final = IPv6Network("64:ff9b::/96")


class RefusedAddress(ValueError):
    """The URL or the address behind it may not be called; `str()` is safe to show."""


class Reach(StrEnum):
    """How far inside a host may lie."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, read."""

    scheme: Literal["http", "https"]
    #: Lower case; an IPv6 address without its brackets.
    host: str
    port: int
    path: str
    query: str

    @property
    def netloc(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be equal for two URLs to share secrets."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The URL, without what its scheme implies."""
        default = 443 if self.scheme == "https" else 80
        shown = self.netloc.removesuffix(f":{default}") if self.port == default else self.netloc
        return f"{self.scheme}://{shown}{self.path}" + (f"?{self.query}" if self.query else "")


def read_url(url: str) -> Target:
    """Read an absolute http or https URL whose parts are percent-encoded already.

    Raises:
        RefusedAddress: another scheme, or a spelling that could hide another host.
    """
    if len(url) > MAX_URL_CHARS:
        raise RefusedAddress(f"is longer than {MAX_URL_CHARS} characters")
    if not _ENCODED.fullmatch(url):
        raise RefusedAddress("has characters that a URL must percent-encode")
    parts = _URL.fullmatch(url.partition("#")[0])
    if parts is None:
        raise RefusedAddress("must begin with https:// or http:// and a host")
    scheme: Literal["http", "https"] = "https" if parts[1].lower() == "https" else "http"
    host, port = _read_authority(parts[2], 443 if scheme == "https" else 80)
    return Target(scheme, host, port, parts[3] or "/", parts[4] or "")


def read_host(text: str) -> str:
    """Read `host` or `host:port`, as a credential names one; in the spelling of `Target`.

    Raises:
        RefusedAddress: it is neither.
    """
    host, port = _read_authority(text.strip(), -1)
    if port == -1:
        return host
    return Target("https", host, port, "/", "").netloc


def reach_of(host: str, egress: Egress) -> Reach:
    """Return how far inside a host may lie, by its spelling and the operator's setting."""
    if host in egress.hosts:
        return Reach.INTERNAL
    if host == "localhost" or host.endswith(".localhost"):
        return Reach.LOOPBACK if egress.allows_loopback else Reach.PUBLIC
    address = literal_of(host)
    if address is None or not egress.contains(address):
        return Reach.PUBLIC
    return Reach.LOOPBACK if _is_loopback(address) else Reach.INTERNAL


def check_target(target: Target, *, is_named: bool, egress: Egress) -> Reach:
    """Refuse what the rule above refuses before any name is resolved.

    Args:
        is_named: a credential or a setting wrote this host.
        egress: what the operator lets be called inside.
    """
    reach = reach_of(target.host, egress)
    if reach is not Reach.PUBLIC and not is_named:
        raise RefusedAddress("leads inside; only a credential or a setting may name such a host")
    if reach is Reach.PUBLIC and target.scheme == "http":
        raise RefusedAddress(
            "is plain http, which goes to what CONNECTORS_EGRESS_ALLOW names alone; use https"
        )
    address = literal_of(target.host)
    if address is not None:
        check_address(address, reach)
    return reach


def check_address(address: Address, reach: Reach) -> None:
    """Refuse an address that a host of this reach may not lead to."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        address = IPv4Address(int(address) & 0xFFFF_FFFF)
    if reach is Reach.LOOPBACK:
        if not _is_loopback(address):
            raise RefusedAddress("is written as loopback and leads elsewhere")
        return
    if address in _METADATA or not (
        _is_public(address) or (reach is Reach.INTERNAL and (_is_loopback(address) or _is_private(address)))
    ):
        raise RefusedAddress(
            "leads to an address that is not public; an operator can allow it in CONNECTORS_EGRESS_ALLOW"
        )


@lru_cache(maxsize=1024)
def literal_of(host: str) -> Address | None:
    """Return the address that a host is written as; None if it is a name."""
    if ":" not in host and not host[-1:].isdigit():
        return None
    try:
        return ip_address(host)
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _read_authority(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise RefusedAddress("has a user name or password in it; they belong in the credential")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise RefusedAddress("names no host, or one that is not plain ASCII")
    bracketed, name, digits = parts.groups()
    port = default_port if digits is None else int(digits)
    if port > 65_535 or port in _OTHER_PROTOCOLS:
        raise RefusedAddress(f"names port {port}, where no HTTP service is called")
    if bracketed is not None:
        try:
            return str(IPv6Address(bracketed)), port
        except ValueError:
            raise RefusedAddress("has brackets around what is not an IPv6 address") from None
    return _read_name(name.lower()), port


def _read_name(host: str) -> str:
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise RefusedAddress("writes an address as a number; write it as four decimals") from None
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise RefusedAddress("names a host that cannot be (an empty label, a trailing dot, a hyphen)")
    if any(label.startswith("xn--") for label in labels):
        try:
            idna.decode(host)
        except idna.IDNAError:
            raise RefusedAddress("names an international host that is not valid IDNA") from None
    return host


def _is_loopback(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return address in _LOOPBACK_V4
    return address == _LOOPBACK_V6


def _is_private(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in _PRIVATE_V4)
    return address in _PRIVATE_V6


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not (
            address in _LOOPBACK_V4
            or _is_private(address)
            or any(address in network for network in _SPECIAL_V4)
        )
    return address in _UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)
