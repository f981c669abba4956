"""Opening connections: what is read at each, and how often a refused login is repeated."""

from typing import Any

import pytest

from worker.broker import BrokerError, BrokerRefused, Connection
from worker.broker.connector import BrokerConnector


class Broker:
    """Answers logins from a script of one answer; counts them."""

    answer: BrokerError | None = None
    logins = 0

    async def open(self, _url: str, **_: Any) -> Any:
        self.logins += 1
        if self.answer is not None:
            raise self.answer
        return self


class Clock:
    """A clock that the test moves."""

    time_s = 1000.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(Connection, "open", broker.open)
    return broker


async def _refused(connector: BrokerConnector) -> bool:
    """Try to connect; return whether the refusal is final."""
    with pytest.raises(BrokerError) as caught:
        await connector.open("test")
    return isinstance(caught.value, BrokerRefused)


async def test_the_first_login_that_is_refused_is_final(broker: Broker) -> None:
    broker.answer = BrokerRefused("wrong password")

    assert await _refused(BrokerConnector("amqp://h", now=Clock()))


async def test_a_login_refused_later_slows_down_and_ends_after_five_minutes(broker: Broker) -> None:
    clock = Clock()
    connector = BrokerConnector("amqp://h", now=clock)
    await connector.open("test")
    broker.answer, broker.logins = BrokerRefused("wrong password"), 0
    finals = []

    for _ in range(299):
        clock.time_s += 1
        finals += [await _refused(connector) for _link in range(10)]

    assert not any(finals)
    assert broker.logins <= 9
    clock.time_s += 60
    assert await _refused(connector)


async def test_a_login_accepted_again_forgets_the_refusal(broker: Broker) -> None:
    clock = Clock()
    connector = BrokerConnector("amqp://h", now=clock)
    await connector.open("test")
    broker.answer = BrokerRefused("starting")
    assert not await _refused(connector)

    broker.answer = None
    clock.time_s += 5
    await connector.open("test")
    broker.answer = BrokerRefused("wrong password")
    clock.time_s += 400

    assert not await _refused(connector)


async def test_the_authority_is_read_for_each_connection(broker: Broker) -> None:
    reads: list[int] = []

    def tls() -> None:
        reads.append(1)
        if len(reads) == 2:
            raise OSError("no such file")

    connector = BrokerConnector("amqps://h", tls=tls)
    await connector.open("first")

    assert not await _refused(connector)
    await connector.open("third")
    assert 3 == len(reads)
