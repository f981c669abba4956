"""`dummy` and `http` pass the contract that every connector must; the others' are beside their tests."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from connectors.dummy import dummy
from connectors.http_request import http
from connectors.sdk.testing import Answer, Asked, ConnectorContract, FakeProvider, Via

pytestmark = pytest.mark.integration


class TestDummy(ConnectorContract):
    connector = dummy
    exempt: ClassVar[Mapping[str, Mapping[str, str]]] = {
        check: {"fail": "it does nothing but fail"}
        for check in ("test_every_action_does_its_work", "test_unicode_goes_through")
    }

    def example(self, action: str, provider: Any) -> Mapping[str, Any]:
        seconds = {"seconds": 0.01}
        examples: dict[str, Mapping[str, Any]] = {
            "sleep": seconds,
            "block": seconds,
            "fail": {"code": "NOT_FOUND"},
        }
        return examples.get(action, super().example(action, provider))


class Orders(FakeProvider):
    """An API that knows keys: the same key is the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[str, Any] = {}
        self.on("POST", "/v1/orders", self.create)

    def create(self, asked: Asked) -> Answer:
        key = asked.headers["idempotency-key"]
        self.orders.setdefault(key, asked.json())
        return Answer({"id": key}, status=201)


class TestHttpWithKeys(ConnectorContract):
    connector = http
    idempotency_header: str | None = "Idempotency-Key"

    def provider(self) -> Orders:
        return Orders()

    def credential(self, provider: Orders, via: Via) -> dict[str, Any]:
        return {
            "base_url": via(f"{provider.url}/v1"),
            "auth": "basic",
            "username": "desk",
            "password": "a-secret-of-the-test",
            "idempotency_header": self.idempotency_header,
        }

    def example(self, action: str, provider: Orders) -> Mapping[str, Any]:
        return {"method": "POST", "path": "/orders", "json": {"number": 17}}

    def state(self, provider: Orders) -> object:
        return dict(provider.orders)

    def essence(self, data: Any) -> object:
        return {**data, "headers": {**data["headers"], "date": ""}}


class TestHttpWithoutKeys(TestHttpWithKeys):
    """The API's keys are not declared, so a POST is a WRITE."""

    idempotency_header = None
