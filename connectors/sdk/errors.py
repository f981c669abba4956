"""What an action may raise, and what each class means for the job.

    ConnectorError
    ├── InvalidParams         the job's parameters make no sense               reported to the caller
    ├── CredentialNotFound    ┐
    ├── CredentialInvalid     ├ the secret is missing, refused or forbidden    reported to the caller
    ├── CredentialDenied      ┘
    ├── PermissionDenied      ┐
    ├── NotFound              ├ the provider refuses the request               reported to the caller
    ├── Conflict              │
    ├── Rejected              ┘
    ├── RateLimited           ┐ the provider cannot do it now;                 retried if the action is READ or
    ├── Unavailable           ├ `sent` is UNCERTAIN unless it is given         KEYED, or if nothing happened
    ├── Timeout               ┘
    └── OutcomeUnknown          a write may or may not have happened           dead-lettered, never retried

Anything else that leaves an action is a bug of the connector: CONNECTOR_ERROR.

Whether a run may have had an effect is decided by all requests that it sent through `ctx.http`: an error that is
raised after a successful write does not make it undone. Of requests that go another way the runtime knows nothing:
there `sent` speaks for the whole run, and what may pass by itself is uncertain unless it says otherwise.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Self

from schemas.error import Code, Detail

__all__ = [
    "Code",
    "Conflict",
    "ConnectorError",
    "CredentialDenied",
    "CredentialInvalid",
    "CredentialNotFound",
    "Detail",
    "InvalidParams",
    "NotFound",
    "OutcomeUnknown",
    "PermissionDenied",
    "RateLimited",
    "Rejected",
    "Sent",
    "Timeout",
    "Unavailable",
]


class Sent(StrEnum):
    """How far a request came before it failed."""

    #: It never left, or can change nothing: safe to repeat.
    NO = "no"
    #: It was answered, and the answer says that nothing was done.
    ANSWERED = "answered"
    #: It may have been processed: a write must not be repeated blindly.
    UNCERTAIN = "uncertain"


class ConnectorError(Exception):
    """Fail the job with a code of the closed list.

    Args:
        message: for the developer who sent the job; our own words, never a secret, never a third
            party's raw text.
        code: only to raise a code that has no class of its own.
        retry_after_s: seconds the provider asks to wait.
        details: the fields that are wrong.
        data: what a program can use (JSON types only).
        sent: how far the request had come; UNCERTAIN makes a WRITE OUTCOME_UNKNOWN.
    """

    code: ClassVar[Code] = Code.CONNECTOR_ERROR
    #: What holds unless `sent` is given. An author's word alone proves nothing of what an earlier request did.
    default_sent: ClassVar[Sent] = Sent.ANSWERED

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        retry_after_s: float | None = None,
        details: Sequence[Detail] = (),
        data: Mapping[str, Any] | None = None,
        sent: Sent | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may differ from its class
        self.retry_after_s = retry_after_s
        self.details = tuple(details)
        self.data = None if data is None else dict(data)
        self.sent = self.default_sent if sent is None else sent
        #: Whether it was said how far the request had come.
        self.is_sent_given = sent is not None


class InvalidParams(ConnectorError):
    """The job's parameters make no sense together, though each fits its type.

    raise InvalidParams.field("range_end", "must come after range_start")
    """

    code = Code.INVALID_PARAMS

    @classmethod
    def field(cls, name: str, issue: str) -> Self:
        """Return the error of one wrong parameter, found before anything was sent."""
        return cls(f"{name}: {issue}", details=[Detail(field=name, issue=issue)], sent=Sent.NO)


class CredentialNotFound(ConnectorError):
    """There is no such credential."""

    code = Code.CREDENTIAL_NOT_FOUND


class CredentialInvalid(ConnectorError):
    """The credential is malformed, or the provider rejected it (401, invalid_grant)."""

    code = Code.CREDENTIAL_INVALID


class CredentialDenied(ConnectorError):
    """The vault's policy forbids reading the credential."""

    code = Code.CREDENTIAL_DENIED


class PermissionDenied(ConnectorError):
    """The provider knows the account, and the account may not do this (403)."""

    code = Code.PERMISSION_DENIED


class NotFound(ConnectorError):
    """The provider has nothing with the id or name that the job gives (404, 410)."""

    code = Code.NOT_FOUND


class Conflict(ConnectorError):
    """It conflicts with something that exists (409, 412)."""

    code = Code.CONFLICT


class Rejected(ConnectorError):
    """The provider's own validation rejected it (other 4xx)."""

    code = Code.REJECTED


class RateLimited(ConnectorError):
    """The provider's rate limit is reached (429); retried if that is safe, not before `retry_after_s`."""

    code = Code.RATE_LIMITED
    default_sent = Sent.UNCERTAIN


class Unavailable(ConnectorError):
    """The provider cannot be reached or is failing (408, 5xx); retried if that is safe."""

    code = Code.UNAVAILABLE
    default_sent = Sent.UNCERTAIN


class Timeout(ConnectorError):
    """No response in time; retried if that is safe."""

    code = Code.TIMEOUT
    default_sent = Sent.UNCERTAIN


class OutcomeUnknown(ConnectorError):
    """A write may or may not have happened; dead-lettered, never retried."""

    code = Code.OUTCOME_UNKNOWN
    default_sent = Sent.UNCERTAIN
