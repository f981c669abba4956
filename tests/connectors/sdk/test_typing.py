"""What mypy says of connectors: nothing where they are right, and where a line is wrong, what."""

import re
from pathlib import Path

import pytest
from mypy import api

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).parents[3] / "pyproject.toml"

#: Each line that ends in `# E: …` must be found wrong, with these words; no other line may be.
CASES = '''
from pydantic import BaseModel, SecretStr
from connectors.sdk import Conflict, Connector, Context, Effect, NotFound, Personal
from connectors.sdk.auth import ApiKey
from connectors.sdk.errors import Code
from connectors.sdk.testing import ConnectorContract, Kit


class Secret(BaseModel):
    key: SecretStr


class Other(BaseModel):
    token: SecretStr


class Params(BaseModel):
    number: int


bare = Connector("bare")
crm = Connector("crm", credential=Secret)
Connector("wrong", credential=str)  # E: cannot be "str"
Connector("wrong", credential=Secret(key=SecretStr("x")))  # E: No overload variant


@crm.action
async def look(number: int, ctx: Context[Secret]) -> str:
    """Look."""
    ctx.credential.token  # E: "Secret" has no attribute "token"
    return ctx.credential.key.get_secret_value()


@crm.action(effect=Effect.WRITE, timeout_s=5, errors=[NotFound, Conflict, Code.REJECTED])
async def write(params: Params, ctx: Context[Secret], phone: Personal[str] = "") -> list[str]:
    """Write."""
    phone.upper()
    phone.append("x")  # E: "str" has no attribute "append"
    return [1]  # E: List item 0 has incompatible type "int"


@crm.action(effect="read")  # E: No overload variant
async def wrong_effect() -> None: ...


@crm.action(effect=Effect.READ, timeout_s="10")  # E: No overload variant
async def wrong_timeout() -> None: ...


@crm.action(effect=Effect.READ, errors=["NOT_FOUND"])  # E: List item 0 has incompatible type "str"
async def wrong_errors() -> None: ...


def by_method(params: Params, credential: Secret | None) -> Effect:
    return Effect.READ


def by_other(params: Params, credential: Other | None) -> Effect:
    return Effect.READ


@crm.action(effect=by_method)
async def depends(params: Params) -> None: ...


@crm.action(effect=by_other)  # E: Argument "effect"
async def depends_on_another(params: Params) -> None: ...


@write.reconcile
async def found(params: Params, ctx: Context[Secret], phone: Personal[str] = "") -> list[str] | None:
    return None


@write.reconcile  # E: Argument 1 to "reconcile"
async def found_something_else(params: Params, ctx: Context[Secret]) -> int | None:
    return 1


@write.undo  # E: Value of type variable "UndoT"
def undo_without_async(ctx: Context[Secret]) -> None: ...


@bare.action(effect=Effect.READ)
def blocking(number: int) -> str:
    """Block."""
    return str(number)


async def calls() -> None:
    context = Context("j", "t", "c", "a", "k", Secret(key=SecretStr("x")), None)  # E: expected "HttpClient"
    text: str = await look(1, context)
    wrong: int = await look(1, context)  # E: expression has type "str", variable has type "int"
    number: int = blocking(1)  # E: expression has type "str", variable has type "int"
    blocking("1")  # E: incompatible type "str"; expected "int"
    crm.read_credential({}).key
    crm.read_credential({}).token  # E: "Secret" has no attribute "token"
    async with Kit(crm, credential={"key": "x"}) as kit:
        (await kit.run(look, {"number": 1})).code == Code.NOT_FOUND
        await kit.run(look, mode="later")  # E: expected "Literal['run', 'undo', 'validate']"


class Mine(ApiKey):
    region: str = "eu"


class TestMine(ConnectorContract):
    connector = crm
'''


def test_what_is_wrong_is_found_and_what_is_right_is_not(tmp_path: Path) -> None:
    file = tmp_path / "cases.py"
    file.write_text(CASES)
    expected = {
        number: line.split("# E: ")[1]
        for number, line in enumerate(CASES.splitlines(), start=1)
        if "# E: " in line
    }

    said, crash, _ = api.run(["--strict", "--config-file", str(CONFIG), "--no-error-summary", str(file)])

    found: dict[int, str] = {}
    for line in said.splitlines():
        if match := re.match(r".*cases\.py:(\d+): error: (.*)", line):
            found[int(match[1])] = found.get(int(match[1]), "") + match[2]
    assert "" == crash
    assert expected.keys() == found.keys(), said
    assert {} == {number: found[number] for number, words in expected.items() if words not in found[number]}
