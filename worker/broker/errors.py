"""What goes wrong with the broker, in classes of this worker."""


class BrokerError(Exception):
    """The broker, or the way to it, failed; the message says how."""


class BrokerRefused(BrokerError):
    """The broker rejected us, or its certificate is not trusted: retrying cannot succeed.

    Password, virtual host, permission, certificate.
    """


class TopologyMismatch(BrokerError):
    """A queue or exchange exists with other arguments."""


class PublishUncertain(BrokerError):
    """No confirm came: the message may or may not be stored. Publish it again.

    Args:
        broke: the connection ended on it; else there was only no answer in time.
    """

    def __init__(self, message: str, *, broke: bool) -> None:
        super().__init__(message)
        self.broke = broke


class PublishRefused(BrokerError):
    """The broker said no: a full queue (nack), no permission, no such exchange.

    Args:
        channel_died: the refusal closed the channel, and with it hit what was published beside it.
    """

    def __init__(self, message: str, *, channel_died: bool = False) -> None:
        super().__init__(message)
        self.channel_died = channel_died


class NotFound(BrokerError):
    """No such queue or exchange."""


class Forbidden(BrokerError):
    """The user's permissions do not allow it."""


def brief(error: BaseException) -> str:
    """Return an error of the client library as one short line."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:300]
