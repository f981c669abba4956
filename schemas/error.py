"""The closed list of error codes: what each means, how to fix it, what an agent may say."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Category(StrEnum):
    """Whose side a failure lies on."""

    CALLER = "caller"
    CREDENTIAL = "credential"
    PROVIDER = "provider"
    UNKNOWN = "unknown"
    WORKER = "worker"


class Code(StrEnum):
    """What went wrong: one name for program, operator and metric."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    CONNECTOR_NOT_FOUND = "CONNECTOR_NOT_FOUND"
    ACTION_NOT_FOUND = "ACTION_NOT_FOUND"
    INVALID_PARAMS = "INVALID_PARAMS"
    TENANT_FORBIDDEN = "TENANT_FORBIDDEN"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CREDENTIAL_NOT_FOUND = "CREDENTIAL_NOT_FOUND"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    CREDENTIAL_DENIED = "CREDENTIAL_DENIED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    REJECTED = "REJECTED"
    RATE_LIMITED = "RATE_LIMITED"
    UNAVAILABLE = "UNAVAILABLE"
    TIMEOUT = "TIMEOUT"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    CONNECTOR_ERROR = "CONNECTOR_ERROR"
    DELIVERY_LIMIT = "DELIVERY_LIMIT"
    INTERNAL_ERROR = "INTERNAL_ERROR"

    @property
    def facts(self) -> "CodeFacts":
        """Return this code's row of the table."""
        return CODES[self]


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """One row of the table of codes."""

    category: Category
    #: What the code means, for the developer who meets it.
    meaning: str
    #: Who can fix it, and how: the sentence an operator's listing prints.
    resolution: str
    #: What an agent may read out, by language.
    say: Mapping[str, str]
    #: Whether sending the same job again can help. The worker itself retries these, too.
    retryable: bool = False
    #: Whether the job is dead-lettered even if a live caller got the reply.
    dead_lettered: bool = False


def _facts(
    category: Category,
    meaning: str,
    resolution: str,
    say: dict[str, str],
    *,
    retryable: bool = False,
    dead_lettered: bool = False,
) -> CodeFacts:
    return CodeFacts(category, meaning, resolution, MappingProxyType(say), retryable, dead_lettered)


_CALLER, _CREDENTIAL, _PROVIDER, _WORKER = (
    Category.CALLER,
    Category.CREDENTIAL,
    Category.PROVIDER,
    Category.WORKER,
)
_NOT_UNDERSTOOD = {
    "en": "I couldn't process that request.",
    "tr": "Bu isteği işleyemedim.",
}
_NO_ACCESS = {
    "en": "I can't get into that system right now, so I'll pass this on to a colleague.",
    "tr": "Şu anda o sisteme erişemiyorum, konuyu bir arkadaşıma ileteceğim.",
}
_OUR_FAULT = {
    "en": "Something went wrong on our side.",
    "tr": "Bizim tarafımızda bir sorun oluştu.",
}

#: Every code there is. `schemas/README.md` prints this table; a test holds the two together.
CODES: Mapping[Code, CodeFacts] = MappingProxyType(
    {
        Code.INVALID_MESSAGE: _facts(
            _CALLER,
            "The message is not a job: its syntax, a field or a property is wrong.",
            "The publisher: fix the message; `message` and `details` say where.",
            _NOT_UNDERSTOOD,
        ),
        Code.MESSAGE_TOO_LARGE: _facts(
            _CALLER,
            "The body is larger than the worker takes.",
            "The publisher: send less, or the operator: raise CONNECTORS_MAX_BODY_BYTES.",
            {
                "en": "That was more than I can handle at once.",
                "tr": "Bu, bir seferde işleyebileceğimden fazla.",
            },
        ),
        Code.UNSUPPORTED_VERSION: _facts(
            _CALLER,
            "The job is written in another version of this contract.",
            "The publisher: send version 1.",
            _NOT_UNDERSTOOD,
        ),
        Code.CONNECTOR_NOT_FOUND: _facts(
            _CALLER,
            "No worker runs a connector of this name.",
            "The publisher: fix the name, or the operator: enable the connector.",
            {"en": "I'm not able to do that here.", "tr": "Bunu buradan yapamıyorum."},
        ),
        Code.ACTION_NOT_FOUND: _facts(
            _CALLER,
            "The connector has no action of this name.",
            "The publisher: fix the name; `connectors list` shows the actions.",
            {"en": "I'm not able to do that here.", "tr": "Bunu buradan yapamıyorum."},
        ),
        Code.INVALID_PARAMS: _facts(
            _CALLER,
            "The parameters do not fit the action.",
            "The publisher: fix what `details` names; `connectors describe` shows the schema.",
            {"en": "Some of the details don't look right.", "tr": "Bazı bilgiler doğru görünmüyor."},
        ),
        Code.TENANT_FORBIDDEN: _facts(
            _CALLER,
            "The broker user that published the job may not act for its tenant.",
            "The operator: CONNECTORS_PUBLISHERS says which user acts for which tenants.",
            {"en": "I'm not allowed to do that.", "tr": "Bunu yapma yetkim yok."},
        ),
        Code.IDEMPOTENCY_CONFLICT: _facts(
            _CALLER,
            "The idempotency key was used before with other parameters or another credential.",
            "The publisher: use a new key for a new effect.",
            {
                "en": "That was already requested in a different way.",
                "tr": "Bu istek daha önce farklı bir şekilde yapılmış.",
            },
        ),
        Code.DEADLINE_EXCEEDED: _facts(
            _CALLER,
            "The job's deadline passed before its result; `data.outcome` says what is known.",
            "The publisher: send it again with a later deadline and the same key.",
            {"en": "That took too long.", "tr": "Bu işlem çok uzun sürdü."},
        ),
        Code.CREDENTIAL_NOT_FOUND: _facts(
            _CREDENTIAL,
            "The vault has no credential of this name for the tenant and connector.",
            "The operator: `connectors credentials put`.",
            _NO_ACCESS,
        ),
        Code.CREDENTIAL_INVALID: _facts(
            _CREDENTIAL,
            "The credential is malformed, or the provider rejected it.",
            "The operator: `connectors credentials check`, then put a valid one.",
            _NO_ACCESS,
        ),
        Code.CREDENTIAL_DENIED: _facts(
            _CREDENTIAL,
            "The vault's policy does not let the worker read this credential.",
            "The operator: give the worker's role `read` on the credential's path.",
            _NO_ACCESS,
        ),
        Code.PERMISSION_DENIED: _facts(
            _PROVIDER,
            "The provider knows the account, and the account may not do this.",
            "The account's administrator at the provider.",
            {"en": "I don't have permission to do that.", "tr": "Bunu yapmak için iznim yok."},
        ),
        Code.NOT_FOUND: _facts(
            _PROVIDER,
            "The provider has nothing with the id or name that the job gives.",
            "The publisher: fix the id or name.",
            {"en": "I couldn't find that.", "tr": "Bunu bulamadım."},
        ),
        Code.CONFLICT: _facts(
            _PROVIDER,
            "It conflicts with something that exists, or was undone.",
            "The publisher: choose another one; `data` may hold alternatives.",
            {
                "en": "That isn't possible because something else is already there.",
                "tr": "Orada zaten başka bir şey olduğu için bu mümkün değil.",
            },
        ),
        Code.REJECTED: _facts(
            _PROVIDER,
            "The provider's own validation rejected it.",
            "The publisher: fix what `details` names.",
            {"en": "The other system didn't accept that.", "tr": "Diğer sistem bunu kabul etmedi."},
        ),
        Code.RATE_LIMITED: _facts(
            _PROVIDER,
            "The provider's rate limit or quota is reached.",
            "Wait; or the account's administrator: a larger quota.",
            {
                "en": "The system is very busy right now. Please try again a little later.",
                "tr": "Sistem şu anda çok yoğun. Lütfen biraz sonra tekrar deneyin.",
            },
            retryable=True,
        ),
        Code.UNAVAILABLE: _facts(
            _PROVIDER,
            "The provider cannot be reached or is failing.",
            "Wait; the worker retried already.",
            {
                "en": "The system isn't responding right now. Please try again a little later.",
                "tr": "Sistem şu anda yanıt vermiyor. Lütfen biraz sonra tekrar deneyin.",
            },
            retryable=True,
        ),
        Code.TIMEOUT: _facts(
            _PROVIDER,
            "The action did not end within its timeout.",
            "Wait; the worker retried already.",
            {
                "en": "The system is taking too long to respond. Please try again a little later.",
                "tr": "Sistemin yanıtı çok uzun sürüyor. Lütfen biraz sonra tekrar deneyin.",
            },
            retryable=True,
        ),
        Code.OUTCOME_UNKNOWN: _facts(
            Category.UNKNOWN,
            "A write may or may not have happened, and the worker cannot find out.",
            "The operator: look at the provider, then `connectors dead resolve`.",
            {
                "en": "I can't tell yet whether that went through, so please let me have someone check.",
                "tr": "İşlemin gerçekleşip gerçekleşmediğini henüz bilemiyorum, bir arkadaşım kontrol etsin.",
            },
            dead_lettered=True,
        ),
        Code.RESULT_TOO_LARGE: _facts(
            _WORKER,
            "The result is over 1 MiB.",
            "The publisher: ask for less (a limit, fewer fields).",
            {
                "en": "There is too much information to go through.",
                "tr": "Aktarılamayacak kadar çok bilgi var.",
            },
        ),
        Code.CONNECTOR_ERROR: _facts(
            _WORKER,
            "The connector has a bug: it raised an undeclared error, or returned an invalid result.",
            "The connector's author: the worker's log has the traceback under the job's id.",
            _OUR_FAULT,
            dead_lettered=True,
        ),
        Code.DELIVERY_LIMIT: _facts(
            _WORKER,
            "Workers died on this job too often.",
            "The operator: find the cause, then `connectors dead replay`.",
            _OUR_FAULT,
            dead_lettered=True,
        ),
        Code.INTERNAL_ERROR: _facts(
            _WORKER,
            "The worker has a bug.",
            "The worker's developers: its log has the traceback under the job's id.",
            _OUR_FAULT,
            dead_lettered=True,
        ),
    }
)


def say(code: Code, locale: str) -> str:
    """Return the sentence an agent may read out, in the locale's language or else in English."""
    sentences = code.facts.say
    return sentences.get(locale.split("-", maxsplit=1)[0].lower(), sentences["en"])


class Detail(BaseModel):
    """One field that is wrong, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    issue: str

    def __str__(self) -> str:
        return f"{self.field}: {self.issue}" if self.field else self.issue


class Error(BaseModel):
    """Why a job failed, as the reply carries it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Code
    category: Category
    message: str = Field(description="For the developer who sent the job.")
    say: str = Field(description="A short sentence that an agent may read out, in the job's locale.")
    retryable: bool = Field(description="Whether sending the same job again can help.")
    retry_after_s: float | None = None
    details: tuple[Detail, ...] = ()
    data: dict[str, Any] | None = Field(
        default=None, description="What a program can use: alternatives, ids of duplicates, the outcome."
    )
