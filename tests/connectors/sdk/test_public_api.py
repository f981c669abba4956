"""The public surface: a list that somebody guards."""

import importlib
import inspect
from types import ModuleType

import pytest

import connectors.sdk
from connectors.sdk import Connector, Context, Effect, NotFound
from connectors.sdk.errors import Code
from connectors.sdk.testing import Kit

MODULES = [
    "connectors.sdk",
    "connectors.sdk.auth",
    "connectors.sdk.errors",
    "connectors.sdk.http",
    "connectors.sdk.paginate",
    "connectors.sdk.phone",
    "connectors.sdk.testing",
]


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_is_named_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)

    assert sorted(module.__all__) == sorted(set(module.__all__))
    for each in module.__all__:
        assert hasattr(module, each), each


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_offers_is_what_it_names(name: str) -> None:
    """Nothing else that is defined for authors lies open; what a module imports for itself does not count."""
    module = importlib.import_module(name)
    is_package = name.rpartition(".")[2] in {"sdk", "http", "testing"}

    offered = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and not isinstance(value, ModuleType)
        and (is_package or getattr(value, "__module__", None) == name)
        and (is_package or inspect.isclass(value) or inspect.isfunction(value))
    }

    offered -= {"Any", "TYPE_CHECKING"}
    assert offered <= set(module.__all__) | ({"next_link"} if name.endswith("paginate") else set())


def test_an_author_needs_to_know_few_names() -> None:
    assert len(connectors.sdk.__all__) <= 16


def test_the_smallest_connector_has_six_lines() -> None:
    source = """\
from connectors.sdk import Connector

greeter = Connector("greeter")

@greeter.action
async def hello(name: str) -> str: return f"Hello, {name}"
"""
    names: dict[str, object] = {}
    exec(source, names)

    assert 6 == len(source.splitlines())
    assert isinstance(names["greeter"], Connector)
    assert names["greeter"].actions.keys() == {"hello"}


def test_errors_are_declared_by_class_or_by_code() -> None:
    shop = Connector("shop")

    @shop.action(errors=[NotFound, Code.REJECTED])
    async def look() -> None: ...

    assert (Code.NOT_FOUND, Code.REJECTED) == look.errors


def test_another_connectors_credential_is_refused_at_import() -> None:
    from connectors.sdk.auth import ApiKey, Basic

    shop = Connector("shop", credential=ApiKey)

    with pytest.raises(
        TypeError, match=r"wants a Context\[Basic\], and the connector's credential is ApiKey"
    ):

        @shop.action
        async def look(ctx: Context[Basic]) -> None: ...

    @shop.action
    async def fine(ctx: Context) -> None: ...


async def test_a_keys_digest_is_one_for_each_action_and_key() -> None:
    shop = Connector("shop")
    seen: list[str] = []

    @shop.action(effect=Effect.KEYED)
    async def one(ctx: Context) -> None:
        seen.append(ctx.key_digest)

    @shop.action(effect=Effect.KEYED)
    async def other(ctx: Context) -> None:
        seen.append(ctx.key_digest)

    async with Kit(shop) as kit:
        for action, key in ((one, "a"), (one, "b"), (other, "a")):
            await kit.run(action, key=key)
        kit.forget()
        await kit.run(one, key="a")

    assert 3 == len(set(seen))
    assert seen[0] == seen[3]
    assert {64} == {len(each) for each in seen}
