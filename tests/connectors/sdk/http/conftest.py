"""What the tests of the HTTP layer share."""

import socket

import pytest


@pytest.fixture
def unused_port() -> int:
    """A port where no one listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
