import base64
import json
import threading
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.logs.masking import MASK, Redactor, is_secret_name, mask_shapes

SECRET = 'p4ss/w0rd+with "quotes" & ü%\nand a line'


def redactor_of(*secrets: str) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.register(secret)
    return redactor


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("p4ss", "p4ss"),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        repr(SECRET)[1:-1],
    ],
    ids=["raw", "url", "url-all", "url-lower", "form", "json-ascii", "json", "repr"],
)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "x" * 61])
def test_a_registered_secret_is_masked_in_every_form(form: str, before: str) -> None:
    redactor = redactor_of(SECRET)

    masked = redactor.mask(f"{before}{form}.after")

    assert f"{before}{MASK}.after" == masked


@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_inside_base64_is_masked(before: str, encode: object) -> None:
    secret = "~~~???canary-0123456789"
    assert callable(encode)
    encoded = encode(f"{before}{secret}".encode()).decode()

    masked = redactor_of(secret).mask(f"header {encoded}")

    assert MASK in masked
    assert len(masked) <= len("header ") + len(before) * 2 + len(MASK) + 4


@given(
    secret=st.text(min_size=8, max_size=40).filter(lambda text: len(text.strip()) >= 8),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_no_secret_survives_in_any_surrounding_text(secret: str, before: str, after: str) -> None:
    secret = secret.strip()

    masked = redactor_of(secret).mask(before + secret + after)

    assert secret not in masked or secret in MASK * 20


def test_a_secret_holding_another_leaves_nothing_of_it() -> None:
    redactor = redactor_of("inner-secret", "outer-inner-secret-outer")

    assert f"<{MASK}>" == redactor.mask("<outer-inner-secret-outer>")


def test_short_values_are_not_masked_by_value() -> None:
    assert "the action echo" == redactor_of("action", "echo").mask("the action echo")


def test_a_text_seen_clean_is_masked_once_its_secret_is_known() -> None:
    redactor = redactor_of("another-secret")
    before = redactor.mask("token-canary-1")

    redactor.register("token-canary-1")

    assert before == "token-canary-1"
    assert MASK == redactor.mask("token-canary-1")


def test_the_oldest_secret_is_forgotten_beyond_the_limit() -> None:
    redactor = Redactor(max_secrets=2)
    for secret in ("first-secret", "second-secret"):
        redactor.register(secret)
    redactor.register("first-secret")  # seen again, so the second is the oldest now

    redactor.register("third-secret")

    assert f"{MASK} second-secret {MASK}" == redactor.mask("first-secret second-secret third-secret")


def test_forgetting_a_secret_keeps_a_form_that_another_one_has() -> None:
    redactor = Redactor(max_secrets=1)
    redactor.register("a b c d e f")
    redactor.register("a%20b%20c%20d%20e%20f")

    assert MASK == redactor.mask("a%20b%20c%20d%20e%20f")


def test_a_redactor_does_not_show_its_secrets() -> None:
    assert "Redactor(1 secrets)" == repr(redactor_of("canary-secret"))


def test_threads_may_register_while_others_mask() -> None:
    redactor = Redactor(max_secrets=50)
    failures: list[Exception] = []

    def register() -> None:
        for number in range(500):
            redactor.register(f"secret-number-{number}")

    def mask() -> None:
        try:
            while writer.is_alive():
                redactor.mask("secret-number-77 and secret-number-499 and more")
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=register)
    reader = threading.Thread(target=mask)
    writer.start()
    reader.start()
    writer.join()
    reader.join()

    assert [] == failures
    assert f"{MASK} and more" == redactor.mask("secret-number-499 and more")


SECRET_NAMES = (
    "password client_secret clientSecret X-Vault-Token access_token refreshToken Authorization api_key apiKey"
    " apikey private_key privateKey secret_id security_token Set-Cookie assertion"
)


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "token_uri",
        "tokens_used",
        "credential",
        "idempotency_key",
        "key",
        "job_id",
        "tenant",
        "secretary",
        "code",
    ],
)
def test_names_of_other_things_are_left_alone(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://guest:s3cret@rabbit:5672/", "amqp://guest:***@rabbit:5672/"),
        ("amqp://guest:a@b:c@rabbit/x", "amqp://guest:***@rabbit/x"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: ***"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': '***'}"),
        ("sent Bearer abcdefgh12345678 along", "sent Bearer *** along"),
        ('{"client_secret": "abc", "a": 1}', '{"client_secret": "***", "a": 1}'),
        ("grant?refresh_token=abc&x=1", "grant?refresh_token=***&x=1"),
        ("GET https://www.example.com/c?key=AIzaSy&alt=json", "GET https://www.example.com/c?key=***&alt=json"),
        ("token hvs.CAESIJ1234 refused", "token *** refused"),
        ("got ya29.a0AfH6SMBx from Google", "got *** from Google"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl x", "*** x"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nrest", "***\nrest"),
        ("-----BEGIN RSA PRIVATE KEY-----\\nMIIE and cut", "***"),
        ("[type=string_type, input_value='+905551112233', input_type=str]",
         "[type=string_type, input_value=***, input_type=str]"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    assert expected == mask_shapes(text)


@pytest.mark.parametrize(
    "text",
    [
        "job finished",
        "token expired: sign in again",
        "see https://example.com:8080/a@b",
        "basic authentication",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert text == mask_shapes(text)


@pytest.mark.parametrize(
    "text",
    [
        "://" * 13_000,
        "://a:" * 8_000,
        "token=" * 7_000,
        "secret" + " " * 40_000,
        "authorization" * 3_000,
        "-----BEGIN " * 4_000,
        "input_value=" * 3_400,
        "bearer " * 6_000,
        "eyJ" + "a" * 40_000,
        "eyJaaaaaaaa." * 3_400,
        "a" * 40_000 + "=!",
        "A" * 40_000 + ":",
    ],
    ids=lambda text: str(text)[:12],
)
def test_hostile_texts_cost_linear_time(text: str) -> None:
    redactor = redactor_of("some-secret-value")
    begin = time.process_time()

    redactor.mask(text)

    assert time.process_time() - begin < 1.0
