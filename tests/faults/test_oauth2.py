"""A broker that knows users by their OAuth 2 tokens: the name in the URL counts for nothing there."""

import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pydantic import SecretStr

from tests.conftest import StartWorker
from tests.support.rpc import ExternalClient, job
from worker.admin.dead_letters import DeadLetterQueue
from worker.dev.rabbitmq import PrivateRabbitMQ
from worker.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

SCOPES = [f"rabbitmq.{right}:*/*/*" for right in ("configure", "write", "read")]


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key: rsa.RSAPrivateKey, subject: str) -> str:
    """Sign a token as an authorization server would."""
    header = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
    claims = {"sub": subject, "aud": ["rabbitmq"], "scope": SCOPES, "exp": int(time.time()) + 3600}
    signed = ".".join(_part(json.dumps(part).encode()) for part in (header, claims))
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_part(signature)}"


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[tuple[PrivateRabbitMQ, rsa.RSAPrivateKey]]:
    """A broker that takes tokens beside passwords, and the key that signs them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = tmp_path / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    config = (
        "auth_backends.1 = rabbit_auth_backend_oauth2",
        "auth_backends.2 = internal",
        "auth_oauth2.resource_server_id = rabbitmq",
        "auth_oauth2.default_key = k1",
        f"auth_oauth2.signing_keys.k1 = {public}",
        "auth_oauth2.algorithms.1 = RS256",
    )
    plugins = ("rabbitmq_auth_backend_oauth2",)
    async with PrivateRabbitMQ(tmp_path / "rabbitmq", config=config, plugins=plugins) as broker:
        yield broker, key


async def test_a_worker_with_a_token_publishes_under_its_brokers_user_name(
    tokens: tuple[PrivateRabbitMQ, Any], start_worker: StartWorker, tmp_path: Path
) -> None:
    broker, key = tokens
    url = f"amqp://ignored:{token(key, 'worker-7')}@127.0.0.1:{broker.amqp_port}/"
    worker = await start_worker(url, max_attempts="2")

    with ExternalClient(broker.url) as external:
        reply = external.call(job("dummy", "fail", {"code": "UNAVAILABLE"}))
        external.until(lambda: external.depth("connectors.dead") == 1, 10, lambda: "the dead letter")
        method, properties, _ = external.channel.basic_get("connectors.dead")
        external.channel.basic_nack(method.delivery_tag)
        settings = Settings(rabbitmq_url=SecretStr(url), data_dir=tmp_path)
        async with DeadLetterQueue(settings) as letters:
            replayed = await letters.replay(lambda _: True)
        await worker.until_logged("job finished", count=2)

    assert ("UNAVAILABLE", 2) == (reply["error"]["code"], reply["attempts"])
    assert "worker-7" == properties.user_id
    assert 1 == len(replayed)
    await worker.ready()
    assert not worker.logged("broker refuses a message")
