"""What we stand on in the AMQP client. If an upgrade breaks something here, read this before anything else.

Our own channels use the client's socket by five public names; each test says which one changed.
"""

import inspect
from typing import Any

import aiormq
import pytest
from aiormq.exceptions import AMQPConnectionError
from pamqp import commands
from yarl import URL

from worker.broker import Connection
from worker.broker.wire.socket import SocketFactory


class NoTls:
    """What the client hands to a factory."""


def test_the_client_asks_a_factory_of_ours_for_its_socket() -> None:
    asked = inspect.signature(aiormq.TransportFactory.create)
    built = inspect.signature(aiormq.Connection.__init__)

    assert ["self", "url", "kwargs"] == list(asked.parameters), "aiormq.TransportFactory.create"
    assert "transport_factory" in built.parameters, "aiormq.Connection(transport_factory=)"
    assert "context" in built.parameters, "aiormq.Connection(context=): TLS"


async def test_a_socket_that_cannot_be_opened_is_the_clients_own_error() -> None:
    with pytest.raises(AMQPConnectionError):
        await SocketFactory().create(URL("amqp://127.0.0.1:1"), ssl_context_provider=NoTls())


@pytest.mark.integration
async def test_the_client_tells_limits_end_and_state_by_public_names(broker_url: str) -> None:
    sockets = SocketFactory()
    client = await aiormq.connect(broker_url, transport_factory=sockets)

    assert sockets.socket is not None, "the client opened its socket elsewhere"
    assert client.is_opened, "Connection.is_opened"
    assert client.connection_tune.frame_max, "Connection.connection_tune.frame_max"
    assert client.connection_tune.channel_max, "Connection.connection_tune.channel_max"
    assert not client.closing.done(), "Connection.closing"
    await client.close()
    assert client.closing.done(), "Connection.closing"
    assert sockets.socket.ended is not None, "the client closes the socket that it was given"


@pytest.mark.integration
async def test_the_client_counts_its_channels_from_one_and_ours_from_the_top(broker_url: str) -> None:
    connection = await Connection.open(broker_url, name="test")
    theirs: Any = await connection.channel()
    ours = await connection.own_channel()

    assert 1 == theirs.number, "a client that counts otherwise may take a number of ours"
    assert ours.number > 1000
    await theirs.queue_declare("", exclusive=True)
    assert isinstance(await ours.ask(commands.Basic.Qos(prefetch_count=1)), commands.Basic.QosOk)
    await connection.close()
