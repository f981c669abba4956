"""What a job can send and be given: forms, files, bytes, JSON whatever its type, and answers too large."""

import base64
import json
from email import message_from_bytes
from email.policy import HTTP
from typing import Any

import pytest

from connectors.http_request import http
from connectors.http_request.answer import MAX_ANSWER_BYTES
from connectors.sdk.errors import Code
from connectors.sdk.testing import Answer, Asked, FakeProvider, Kit, Ran

pytestmark = pytest.mark.integration


async def send(**params: Any) -> tuple[Asked, Ran]:
    async with FakeProvider() as api, Kit(http, credential={"base_url": api.url}) as kit:
        api.on("POST", "/", Answer({}))
        ran = await kit.run("request", {"method": "POST", "path": "/", **params})
        return api.journal[0], ran


async def test_a_form_is_encoded() -> None:
    asked, _ = await send(form={"name": "Ada B", "tag": ["a&b", "ü"], "n": 1, "ok": True})

    assert b"name=Ada%20B&tag=a%26b&tag=%C3%BC&n=1&ok=true" == asked.body
    assert "application/x-www-form-urlencoded" == asked.headers["content-type"]


async def test_bytes_are_sent_as_they_are() -> None:
    content = bytes(range(256))
    asked, _ = await send(base64=base64.b64encode(content).decode(), headers={"Content-Type": "image/png"})

    assert (content, "image/png") == (asked.body, asked.headers["content-type"])


async def test_files_and_fields_are_sent_as_multipart() -> None:
    pdf = {
        "base64": base64.b64encode(b"%PDF\xff").decode(),
        "filename": 'a"b.pdf',
        "content_type": "application/pdf",
    }
    asked, _ = await send(multipart={"note": "Grüße", "file": pdf, "n": [1, True], "raw": {"text": "x\r\n"}})

    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    parts = list(message_from_bytes(head + asked.body, policy=HTTP).iter_parts())
    names = [part.get_param("name", header="content-disposition") for part in parts]
    contents = [part.get_payload(decode=True) for part in parts]
    assert ["note", "file", "n", "n", "raw"] == names
    assert ["Grüße".encode(), b"%PDF\xff", b"1", b"true", b"x\r\n"] == contents
    assert ("a%22b.pdf", "application/pdf") == (parts[1].get_filename(), parts[1].get_content_type())


async def test_a_repeat_sends_the_same_multipart_body() -> None:
    async with FakeProvider() as api:
        api.script(Answer(instead="cut"))
        api.on("PUT", "/", Answer({}))
        async with Kit(http, credential={"base_url": api.url}) as kit:
            await kit.run("request", {"method": "PUT", "path": "/", "multipart": {"a": "1"}})

    first, second = api.journal
    assert (first.body, first.headers["content-type"]) == (second.body, second.headers["content-type"])


@pytest.mark.parametrize(
    "params",
    [
        {"form": {}, "json": 1},
        {"form": {}, "body": ""},
        {"multipart": {}, "base64": ""},
        {"base64": "no base64!"},
        {"base64": "YQ"},
        {"multipart": {"a": {}}},
        {"multipart": {"a": {"text": "", "base64": ""}}},
        {"multipart": {"a": {"base64": "?"}}},
        {"multipart": {"a": {"text": "", "content_type": "a\r\nb"}}},
        {"form": {"a": {"b": 1}}},
        {"form": {"a": None}},
        {"method": "GET", "form": {}},
        {"method": "GET", "base64": ""},
        {"method": "HEAD", "multipart": {}},
    ],
)
async def test_bodies_that_make_no_sense_are_refused(params: dict[str, Any]) -> None:
    async with Kit(http, credential={"base_url": "https://api.example.com"}) as kit:
        ran = await kit.run("request", {"method": "POST", "path": "/", **params})

    assert ran.result.error is not None
    assert Code.INVALID_PARAMS is ran.result.error.code


async def get(answer: Answer, method: str = "GET", **params: Any) -> Ran:
    async with FakeProvider() as api, Kit(http, credential={"base_url": api.url}) as kit:
        api.on(method, "/", answer)
        return await kit.run("request", {"method": method, "path": "/", **params})


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/html; charset=utf-8", "application/octet-stream"]
)
async def test_json_is_read_whatever_its_type_if_the_job_asks(content_type: str) -> None:
    answer = Answer(body=b'{"a": 1}', headers={"Content-Type": content_type})

    assert '{"a": 1}' == (await get(answer)).data["body"]
    assert {"a": 1} == (await get(answer, parse_json=True)).data["body"]


async def test_what_is_no_json_is_text_even_if_the_job_asks() -> None:
    ran = await get(Answer(body=b"<p>", headers={"Content-Type": "text/html"}), parse_json=True)

    assert "<p>" == ran.data["body"]


@pytest.mark.parametrize("size_bytes", [MAX_ANSWER_BYTES + 1, 11 * 2**20])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_write_succeeds_though_its_answer_is_too_large(method: str, size_bytes: int) -> None:
    ran = await get(
        Answer(body=b"x" * size_bytes, headers={"Content-Type": "text/plain"}, status=201), method
    )

    assert (201, None, True) == (ran.data["status"], ran.data["body"], ran.data["body_truncated"])


async def test_a_write_is_given_an_answer_that_fits() -> None:
    body = "ü" * (MAX_ANSWER_BYTES // 2 - 10)
    ran = await get(Answer(body=body.encode(), headers={"Content-Type": "text/plain"}), "POST")

    assert (body, False) == (ran.data["body"], ran.data["body_truncated"])


@pytest.mark.parametrize("size_bytes", [2 * 2**20, 11 * 2**20])
async def test_a_read_whose_answer_is_too_large_fails(size_bytes: int) -> None:
    ran = await get(Answer(body=b"x" * size_bytes, headers={"Content-Type": "text/plain"}))

    assert ran.result.error is not None
    assert Code.RESULT_TOO_LARGE is ran.result.error.code


async def test_a_refusal_of_any_size_is_quoted() -> None:
    ran = await get(
        Answer(body=b"x" * 11 * 2**20, headers={"Content-Type": "text/plain"}, status=422), "POST"
    )

    assert ran.result.error is not None
    assert 8192 == len(json.loads(json.dumps(ran.result.error.data))["body"])


async def test_a_refusals_json_is_read_whatever_its_type_if_the_job_asks() -> None:
    refusal = Answer(body=b'{"code": 17}', status=422, headers={"Content-Type": "text/plain"})
    async with FakeProvider() as provider, Kit(http, credential={"base_url": provider.url}) as kit:
        provider.on("POST", "/orders", refusal)

        ran = await kit.run("request", {"method": "POST", "path": "/orders", "parse_json": True})

    assert ran.result.error is not None
    assert {"status": 422, "body": {"code": 17}} == ran.result.error.data
