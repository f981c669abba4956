"""What a broker user may ask for: what is not named is not limited."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.publisher_rights import PublisherRights, Publishers, check_publisher
from schemas.error import Code
from schemas.job import Job


def job(**fields: Any) -> Job:
    return Job(**{"id": "j", "connector": "shop", "action": "buy", "tenant": "acme", **fields})


@pytest.mark.parametrize(
    ("rights", "refused"),
    [
        ({}, None),
        ({"tenants": ("*",)}, None),
        ({"tenants": ("beta",)}, "act for the tenant 'acme'"),
        ({"tenants": ()}, "act for the tenant 'acme'"),
        ({"connectors": ("crm",)}, "use the connector 'shop'"),
        ({"actions": ("sell",)}, "run shop.buy"),
        ({"actions": ("crm.buy",)}, "run shop.buy"),
        ({"actions": ("buy",)}, None),
        ({"actions": ("shop.buy",)}, None),
        ({"modes": ("undo",)}, "publish jobs of the mode 'run'"),
    ],
)
def test_what_is_not_a_right_is_refused_by_name(rights: dict[str, Any], refused: str | None) -> None:
    assert refused == PublisherRights(**{"tenants": ("acme",), **rights}).refusal(job())


@pytest.mark.parametrize("publisher", [None, "", "guest"])
def test_a_user_without_rights_may_do_nothing_where_there_are_rights(publisher: str | None) -> None:
    publishers = {"agent": PublisherRights(tenants=("*",))}

    with pytest.raises(ConnectorError) as refused:
        check_publisher(publishers, publisher, job())

    assert Code.TENANT_FORBIDDEN is refused.value.code
    check_publisher(publishers, "agent", job())
    check_publisher(None, publisher, job())


def test_an_operator_is_a_user_for_every_tenant_that_may_replay() -> None:
    assert PublisherRights(tenants=("*",)).may_replay
    assert not PublisherRights(tenants=("acme",)).may_replay
    assert not PublisherRights(tenants=("*",), modes=("run",)).may_replay


def test_a_list_of_tenants_is_short_for_rights() -> None:
    read = TypeAdapter(Publishers).validate_json('{"agent": ["acme"]}')

    assert PublisherRights(tenants=("acme",)) == read["agent"]
    with pytest.raises(ValidationError):
        TypeAdapter(Publishers).validate_json('{"agent": {"tenants": ["acme"], "tenant": "x"}}')
