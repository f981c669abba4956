"""What goes wrong with the broker, in classes of this worker."""

from enum import StrEnum


class BrokerError(Exception):
    """The broker, or the way to it, failed; the message says how."""


class BrokerRefused(BrokerError):
    """The broker rejected us, or its certificate is not trusted: retrying cannot succeed.

    Password, virtual host, permission, certificate.
    """


class TopologyMismatch(BrokerError):
    """A queue or exchange exists with other arguments."""


class PublishUncertain(BrokerError):
    """No confirm came, and none will: the message may or may not be stored. Publish it again."""


class BrokerRefusal(StrEnum):
    """Why the broker refuses a message."""

    #: A queue rejects it (nack): it is full, or has lost its majority.
    FULL = "full"
    #: The user may not write to the exchange.
    FORBIDDEN = "forbidden"
    #: There is no such exchange.
    MISSING = "missing"
    #: The message is larger than the broker accepts.
    TOO_LARGE = "too large"
    #: A property of it is refused, as a user_id of another user.
    INVALID = "invalid"


class PublishRefused(BrokerError):
    """The broker refused a message.

    All but FULL close the channel, so they hit what was published on it at the same time.
    """

    def __init__(self, message: str, refusal: BrokerRefusal) -> None:
        super().__init__(message)
        self.refusal = refusal

    @property
    def channel_died(self) -> bool:
        """Whether the refusal closed the channel."""
        return self.refusal is not BrokerRefusal.FULL

    @property
    def is_final(self) -> bool:
        """Whether the same message will never be accepted."""
        return self.refusal in {BrokerRefusal.TOO_LARGE, BrokerRefusal.INVALID}


class BrokerNotFound(BrokerError):
    """No such queue or exchange."""


class Forbidden(BrokerError):
    """The user's permissions do not allow it."""


def brief(error: BaseException) -> str:
    """Return an error of the client library as one short line."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:300]
