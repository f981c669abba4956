"""However an API spells the secret that it echoes, it does not come back."""

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.http_request import http
from connectors.http_request.mask import Mask
from connectors.sdk.testing import Answer, FakeProvider, Kit

SECRET = 'canary/1f0e+2d"ü=='

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda secret: quote(secret, safe=""),
    "path": quote,
    "form": quote_plus,
    "html": html.escape,
    "json in text": lambda secret: json.dumps({"a": secret}),
    "php": lambda secret: json.dumps({"a": secret}).replace("/", "\\/"),
    "lower": str.lower,
    "lower percent": lambda secret: re.sub("%..", lambda part: part[0].lower(), quote(secret, safe="")),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "basic": lambda secret: base64.b64encode(f"user:{secret}".encode()).decode(),
    "base64 inside": lambda secret: base64.b64encode(f"ab{secret}cd".encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_found_in_every_spelling(spelling: str) -> None:
    spelt = SPELLINGS[spelling](SECRET)

    masked = Mask([SECRET]).text(f"before {spelt} after")

    assert "***" in masked
    assert "1f0e" not in masked.lower()
    assert spelt not in masked


@given(secret=st.text(min_size=8, max_size=40), before=st.binary(max_size=5), after=st.binary(max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_secret_is_found_inside_base64_at_any_place(secret: str, before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + secret.encode("utf-8", "surrogatepass") + after).decode()

    assert "***" in Mask([secret]).text(encoded)


def test_names_and_values_of_json_are_masked() -> None:
    value = {SECRET: [SECRET, {"a": f"x{SECRET}y"}, 1, None, True]}

    assert {"***": ["***", {"a": "x***y"}, 1, None, True]} == Mask([SECRET]).value(value)


def test_without_secrets_nothing_is_masked() -> None:
    assert "text" == Mask([]).text("text")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps({"a": SECRET}).encode(), "application/json"),
        (json.dumps({"a": SECRET}).replace("/", "\\/").encode(), "application/json"),
        (
            ('{"a": "' + "".join(f"\\u{ord(char):04x}" for char in SECRET) + '"}').encode(),
            "application/json",
        ),
        (SECRET.encode("utf-16"), "text/plain; charset=utf-16"),
        (b"\x00\xff" + SECRET.encode(), "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_what_is_read_is_masked_whatever_its_form(body: bytes, content_type: str, status: int) -> None:
    async with FakeProvider() as api:
        answer = Answer(body=body, status=status, headers={"Content-Type": content_type})
        api.on("GET", "/", answer)
        document = {"base_url": api.url, "auth": "query", "parameter": "key", "value": SECRET}
        async with Kit(http, credential=document) as kit:
            ran = await kit.run("request", {"method": "GET", "path": "/"})

    answered = ran.result.data if status == 200 else ran.result.error and ran.result.error.data
    body_read = (answered or {})["body"]
    is_bytes = isinstance(body_read, dict) and "base64" in body_read
    shown = base64.b64decode(body_read["base64"]).decode("latin-1") if is_bytes else json.dumps(body_read)
    assert "1f0e" not in shown
    assert "***" in shown
