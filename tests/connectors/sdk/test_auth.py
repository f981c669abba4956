"""Credentials ready to use: what is sent, how tokens come and go, what becomes of a rotated one."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from pydantic import SecretStr, ValidationError

from connectors.sdk import Connector, Context, CredentialInvalid, Effect, RateLimited, Rejected, Unavailable
from connectors.sdk.auth import (
    ApiCredential,
    ApiKey,
    Basic,
    OAuth2,
    Token,
    TokenCredential,
    TokenEndpoint,
    TokenSource,
    sign_assertion,
)
from connectors.sdk.http import HttpClient
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.http.refresh_tokens import MAX_OLDER, Rotation, Rotations
from connectors.sdk.testing import Answer, Asked, FakeProvider, Kit

ACCOUNT = ("acme", "crm", "default")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


PEM, EC_PEM = _pem_of(RSA_KEY), _pem_of(ec.generate_private_key(ec.SECP256R1()))


class Login(FakeProvider):
    """A token endpoint that exchanges refresh tokens, and an API that believes its newest token."""

    def __init__(self) -> None:
        super().__init__()
        self.refresh_token = "refresh-token-1"
        self.access_token = ""
        self.issued = 0
        self.rotates = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.on("POST", "/token", self.token)
        self.on("GET", "/me", self.me)

    @property
    def token_requests(self) -> list[dict[str, str]]:
        asked = [each for each in self.journal if each.path == "/token"]
        return [dict(pair.split("=", 1) for pair in each.body.decode().split("&")) for each in asked]

    def token(self, asked: Asked) -> Answer:
        form = self.token_requests[-1]
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh_token:
            return Answer({"error": "invalid_grant", "error_description": "third-party text"}, status=400)
        self.issued += 1
        self.access_token = f"access-token-{self.issued}"
        answer = {"access_token": self.access_token, "expires_in": 3600, "instance": "eu1"}
        if self.rotates and form["grant_type"] == "refresh_token":
            self.refresh_token = f"refresh-token-{self.issued + 1}"
            answer["refresh_token"] = self.refresh_token
        return Answer(answer)

    def me(self, asked: Asked) -> Answer:
        is_known = asked.headers.get("authorization") == f"Bearer {self.access_token}"
        return Answer({"me": "desk"}, status=200 if is_known else 401)


@pytest.fixture
async def login() -> AsyncIterator[Login]:
    async with Login() as login:
        yield login


def oauth(login: Login, **fields: Any) -> OAuth2:
    document = {
        "base_url": login.url,
        "token_url": f"{login.url}/token",
        "grant": "refresh_token",
        "client_id": "the client",
        "client_secret": "client-secret",
        "refresh_token": "refresh-token-1",
    }
    return OAuth2.model_validate(document | fields)


class Jobs:
    """Makes calls as jobs of one account do."""

    def __init__(self) -> None:
        self.rotations: list[Rotation] = []
        self.secrets: list[str] = []
        self.pool = HttpPool(HttpPolicy(), keep=self._keep, on_secret=self.secrets.append)

    async def _keep(self, rotation: Rotation) -> None:
        self.rotations.append(rotation)

    def client(self) -> HttpClient:
        return self.pool.client(tenant=ACCOUNT[0], connector=ACCOUNT[1], credential=ACCOUNT[2])

    async def me(self, credential: ApiCredential) -> Any:
        http = self.client()
        context: Context[Any] = Context("j", ACCOUNT[0], ACCOUNT[1], "me", "k", credential, http)
        return (await credential.api(context).get("/me")).json()


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    jobs = Jobs()
    yield jobs
    await jobs.pool.close()


class Bearer(ApiKey):
    header: ClassVar[str] = "Authorization"
    scheme: ClassVar[str] = "Bearer"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        ({"kind": ApiKey, "key": "abc"}, "x-api-key", "abc"),
        ({"kind": Bearer, "key": "abc"}, "authorization", "Bearer abc"),
        (
            {"kind": Basic, "username": "desk", "password": "p:w"},
            "authorization",
            f"Basic {base64.b64encode(b'desk:p:w').decode()}",
        ),
    ],
)
async def test_what_lets_a_request_in_is_sent(
    login: Login, jobs: Jobs, credential: dict[str, Any], header: str, value: str
) -> None:
    kind = credential.pop("kind")
    login.script(Answer({}))

    await jobs.me(kind.model_validate({"base_url": login.url, **credential}))

    assert value == login.journal[0].headers[header]


@pytest.mark.integration
async def test_fifty_jobs_make_one_token_request(login: Login, jobs: Jobs) -> None:
    login.rotates = False

    answers = await asyncio.gather(*(jobs.me(oauth(login)) for _ in range(50)))

    assert [{"me": "desk"}] * 50 == answers
    assert 1 == len(login.token_requests)
    assert ["access-token-1"] == jobs.secrets


@pytest.mark.integration
async def test_a_token_that_is_refused_is_renewed_once(login: Login, jobs: Jobs) -> None:
    await jobs.me(oauth(login))
    login.access_token = "revoked by an administrator"

    assert {"me": "desk"} == await jobs.me(oauth(login))
    assert 2 == login.issued


@pytest.mark.integration
async def test_a_rotated_refresh_token_is_used_from_then_on_and_kept(login: Login, jobs: Jobs) -> None:
    for _ in range(3):
        await jobs.me(oauth(login))  # the document as it was read before the exchange
        login.access_token = "expired"

    used = [form["refresh_token"] for form in login.token_requests]
    assert ["refresh-token-1", "refresh-token-2", "refresh-token-3"] == used
    assert "refresh-token-4" == jobs.rotations[-1].newest.get_secret_value()
    older = {token.get_secret_value() for token in jobs.rotations[-1].older}
    assert {"refresh-token-1", "refresh-token-2", "refresh-token-3"} == older
    assert (ACCOUNT, "refresh_token") == (jobs.rotations[-1].account, jobs.rotations[-1].field)


@pytest.mark.integration
async def test_documents_of_one_line_share_their_access_token(login: Login, jobs: Jobs) -> None:
    await jobs.me(oauth(login))
    await jobs.me(oauth(login, refresh_token="refresh-token-2"))  # as written back

    assert 1 == login.issued


@pytest.mark.integration
async def test_a_line_whose_token_is_refused_gives_way_to_what_is_stored(login: Login, jobs: Jobs) -> None:
    await jobs.me(oauth(login))
    login.access_token, login.refresh_token = "expired", "authorized-anew"

    with pytest.raises(CredentialInvalid, match="invalid_grant") as refused:
        await jobs.me(oauth(login))
    login.refresh_token = "refresh-token-1"  # an operator put the document back

    assert "third-party" not in str(refused.value)
    assert {"me": "desk"} == await jobs.me(oauth(login))


@pytest.mark.integration
async def test_a_wrong_client_does_not_bring_an_older_token_back(login: Login, jobs: Jobs) -> None:
    await jobs.me(oauth(login))
    login.access_token = "expired"
    login.script(Answer({"me": "?"}, status=401), Answer({"error": "invalid_client"}, status=401))

    with pytest.raises(CredentialInvalid, match="invalid_client"):
        await jobs.me(oauth(login))
    await jobs.me(oauth(login))

    # An older token used twice would revoke all of its line.
    assert "refresh-token-2" == login.token_requests[-1]["refresh_token"]


@pytest.mark.integration
async def test_a_rotated_token_is_masked(login: Login, jobs: Jobs) -> None:
    await jobs.me(oauth(login))

    assert {"access-token-1", "refresh-token-2"} == set(jobs.secrets)


class Org(TokenSource):
    """Learns its address at login; its provider locks out who logs in wrongly."""

    cool_down_s: ClassVar[float] = 60.0
    login_url: str
    refresh_token: SecretStr

    async def fetch_token(self, http: HttpClient) -> Token:
        endpoint = TokenEndpoint(
            self.login_url + "/token",
            required=("instance",),
            reasons={"inactive_org": "the org is closed"},
            explain=lambda response, answer: RateLimited("too many logins") if "rate" in answer else None,
        )
        return await endpoint.refresh(http, self.refresh_token, {"client_id": "c"})


def org(login: Login) -> Org:
    return Org(login_url=login.url, refresh_token=SecretStr("refresh-token-1"))


@pytest.mark.integration
async def test_what_a_login_gives_beside_the_token_is_kept(login: Login, jobs: Jobs) -> None:
    auth = org(login).auth(jobs.client())

    first = await auth.token()
    auth.drop(first)
    second = await auth.token()

    assert ({"instance": "eu1"}, {"instance": "eu1"}) == (first.facts, second.facts)
    assert ["refresh-token-1", "refresh-token-2"] == [each["refresh_token"] for each in login.token_requests]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answer", "raised", "said"),
    [
        (Answer({"access_token": "t"}), Unavailable, "without an access token or instance"),
        (Answer({"error": "inactive_org"}, status=400), CredentialInvalid, "the org is closed"),
        (Answer({"error": "invalid_grant", "rate": 1}, status=400), RateLimited, "too many logins"),
        (Answer(status=302, headers={"Location": "/other"}), CredentialInvalid, "redirects"),
    ],
)
async def test_a_provider_explains_its_own_refusals(
    login: Login, jobs: Jobs, answer: Answer, raised: type[Exception], said: str
) -> None:
    login.script(answer)

    with pytest.raises(raised, match=said):
        await org(login).auth(jobs.client()).token()


@pytest.mark.integration
async def test_a_refused_login_is_not_tried_again_at_once(login: Login, jobs: Jobs) -> None:
    login.script(Answer({"error": "invalid_grant"}, status=400))

    for _ in range(2):
        with pytest.raises(CredentialInvalid):
            await org(login).auth(jobs.client()).token()

    assert 1 == len(login.token_requests)


@pytest.mark.integration
async def test_client_credentials_go_into_the_body_or_the_header(login: Login, jobs: Jobs) -> None:
    fields: dict[str, Any] = {"grant": "client_credentials", "refresh_token": None, "scope": "read write"}
    await jobs.me(oauth(login, **fields))
    await jobs.me(oauth(login, **fields, client_auth="basic", audience="api"))

    body, header = login.token_requests
    assert {"client_id": "the%20client", "scope": "read%20write"}.items() <= body.items()
    assert "client_id" not in header
    assert "api" == header["audience"]
    assert (
        [each for each in login.journal if each.path == "/token"][1]
        .headers["authorization"]
        .startswith("Basic ")
    )


@pytest.mark.integration
async def test_an_assertion_is_signed_with_the_key(login: Login, jobs: Jobs) -> None:
    fields = {
        "grant": "jwt",
        "refresh_token": None,
        "private_key": PEM,
        "subject": "desk@acme.example",
    }

    await jobs.me(oauth(login, **fields, client_secret=None))

    (form,) = login.token_requests
    signed, _, signature = form["assertion"].rpartition(".")
    claims = json.loads(_decoded(signed.split(".")[1]))
    RSA_KEY.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" == form["grant_type"]
    assert ("the client", "desk@acme.example", f"{login.url}/token") == (
        claims["iss"],
        claims["sub"],
        claims["aud"],
    )


async def test_a_key_with_escaped_line_breaks_is_read() -> None:
    assert 3 == len((await sign_assertion(SecretStr(PEM.replace("\n", "\\n")), {"iss": "c"})).split("."))


@pytest.mark.parametrize(
    "pem",
    ["no key", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----", EC_PEM],
    ids=["text", "garbled", "elliptic"],
)
async def test_a_key_that_is_no_rsa_key_is_named_and_not_quoted(pem: str) -> None:
    with pytest.raises(CredentialInvalid, match="signing_key cannot be read as an RSA key") as failure:
        await sign_assertion(SecretStr(pem), {}, field="signing_key")

    assert ["signing_key"] == [detail.field for detail in failure.value.details]
    assert "canary" not in repr(failure.value)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (Answer({"error": "invalid_client"}, status=401), CredentialInvalid),
        (Answer({"error": "their own word"}, status=400), CredentialInvalid),
        (Answer(status=503), Unavailable),
        (Answer({"error": "temporarily_unavailable"}, status=400), Unavailable),
        (Answer({"token": "none"}), Unavailable),
        (Answer(body=b"<html>"), Unavailable),
        (Answer(["a list"]), Unavailable),
    ],
)
async def test_what_the_token_endpoint_says_becomes_an_error(
    login: Login, jobs: Jobs, answer: Answer, raised: type[Exception]
) -> None:
    login.script(answer)

    with pytest.raises(raised) as error:
        await jobs.me(oauth(login))

    assert "their own word" not in str(error.value)


@pytest.mark.integration
async def test_a_way_of_ones_own_is_one_function(login: Login, jobs: Jobs) -> None:
    class Session(TokenCredential):
        pin: SecretStr

        async def fetch_token(self, http: Any) -> Token:
            answer = await http.at(self.base_url).post("/token", data={"grant_type": "pin", "pin": "1"})
            return Token(SecretStr(answer.json()["access_token"]), 60)

    session = Session.model_validate({"base_url": login.url, "pin": "4711"})

    assert {"me": "desk"} == await jobs.me(session)
    assert {"me": "desk"} == await jobs.me(session)
    assert 1 == login.issued


@pytest.mark.integration
async def test_a_token_is_sent_to_its_own_api_alone(login: Login, jobs: Jobs) -> None:
    async with FakeProvider() as other:
        other.on("GET", "/", Answer({}))
        http = jobs.pool.client(tenant="t", connector="c", credential="d")
        api = oauth(login).api(Context("j", "t", "c", "a", "k", None, http))
        login.on("GET", "/me", Answer(status=302, headers={"Location": other.url}))
        with pytest.raises(Rejected, match="names another host"):
            await api.get("/me", follow_redirects=True)

    assert [] == other.journal


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grant": "refresh_token", "refresh_token": None}, "needs refresh_token"),
        ({"grant": "jwt"}, "needs private_key"),
        ({"grant": "client_credentials", "client_secret": None}, "needs client_secret"),
        ({"token_url": "ftp://x"}, "token_url"),
        ({"base_url": "nowhere"}, "base_url"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_an_incomplete_document_is_named_and_its_secrets_are_not(fields: dict[str, Any], said: str) -> None:
    document = {
        "base_url": "https://api.example.com",
        "token_url": "https://login.example.com/token",
        "grant": "refresh_token",
        "client_id": "c",
        "client_secret": "client-secret",
        "refresh_token": "refresh-token-1",
        **fields,
    }

    with pytest.raises(CredentialInvalid, match=said) as error:
        Connector("crm", credential=OAuth2).read_credential(document)

    assert "client-secret" not in str(error.value)


def test_basic_refuses_a_colon_and_a_key_refuses_a_line_break() -> None:
    with pytest.raises(ValidationError, match="colon"):
        Basic(base_url="https://a.example", username="a:b", password=SecretStr("x"))
    with pytest.raises(ValidationError, match="line break"):
        ApiKey(base_url="https://a.example", key=SecretStr("a\nb"))


async def test_lines_of_tokens_are_bounded_and_keep_their_name() -> None:
    rotations = Rotations()
    first = SecretStr("t0")
    name = rotations.line_of(ACCOUNT, first)
    for number in range(50):
        await rotations.rotate(ACCOUNT, "refresh_token", SecretStr(f"t{number}"), SecretStr(f"t{number + 1}"))

    assert "t50" == rotations.newest(ACCOUNT, first).get_secret_value()
    assert name == rotations.line_of(ACCOUNT, SecretStr("t50"))
    assert len(rotations._lines) <= MAX_OLDER + 1
    assert "t0" == rotations.newest(("other", "crm", "default"), first).get_secret_value()


@pytest.mark.integration
async def test_an_action_gets_its_client_from_its_credential() -> None:
    crm = Connector("crm", credential=ApiKey)

    @crm.action(effect=Effect.READ)
    async def me(ctx: Context[ApiKey]) -> dict[str, str]:
        """Say who we are."""
        return dict((await ctx.credential.api(ctx).get("/me")).json())

    async with FakeProvider() as provider:
        provider.on("GET", "/me", Answer({"me": "desk"}))
        async with Kit(crm, credential={"base_url": provider.url, "key": "a-secret-key"}) as kit:
            ran = await kit.run(me)

    assert ({"me": "desk"}, ()) == (ran.data, ran.leaks)
