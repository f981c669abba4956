"""Descriptions of an org's objects and their fields, cached."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from connectors.salesforce.client import SalesforceApi
from connectors.salesforce.error_mapping import reason_of
from connectors.sdk.errors import Detail, InvalidParams, NotFound, PermissionDenied, Rejected, Sent

#: Seconds for which a description is used.
TTL_S: Final = 600.0
#: A description older than this is fetched again before a field is reported as unknown.
DOUBT_S: Final = 30.0
#: Most descriptions kept, of all orgs; each has about 100 kB.
MAX_KEPT: Final = 200
#: Fields of a reference to one of several objects.
NAME_FIELDS: Final = frozenset(
    {
        "id",
        "name",
        "type",
        "firstname",
        "lastname",
        "email",
        "phone",
        "title",
        "alias",
        "username",
        "isactive",
    }
)

T = TypeVar("T")


class UnknownObject(PermissionDenied):
    """The org has no such object, or hides it from this user."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The parts of an object's description that the actions need."""

    name: str
    label: str
    is_createable: bool
    is_updateable: bool
    is_deletable: bool
    #: By lower-case name.
    fields: Mapping[str, Mapping[str, Any]]
    described_at: float
    #: Objects that a relationship may lead to, by its lower-case name.
    relationships: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name_field(self) -> str | None:
        """The field that holds a record's name, such as a case's number."""
        return next((str(each["name"]) for each in self.fields.values() if each.get("nameField")), None)


class Descriptions:
    """Descriptions by org and object; the least recently used is evicted first."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_kept: int = MAX_KEPT) -> None:
        self._clock = clock
        self._max_kept = max_kept
        self._kept: OrderedDict[Hashable, ObjectFacts] = OrderedDict()
        #: Concurrent requests for one description wait for the first; removed when no one holds the lock.
        self._asking: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def of(self, api: SalesforceApi, object_name: str, *, within_s: float = TTL_S) -> ObjectFacts:
        """Return the description of an object.

        Raises:
            UnknownObject: this user sees no object of this name.
        """
        key = (api.account, object_name.lower())
        asking = self._asking.setdefault(key, asyncio.Lock())
        async with asking:
            held = self._kept.get(key)
            if held is None or self._clock() - held.described_at >= within_s:
                held = self._kept[key] = _facts(await _fetch(api, object_name), object_name, self._clock())
            self._kept.move_to_end(key)
            if len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        return held

    async def visible(self, api: SalesforceApi, object_names: Iterable[str]) -> list[ObjectFacts]:
        """Return the descriptions of those objects that this user may see.

        Raises:
            UnknownObject: there is none.
        """
        found, hidden = [], None
        for name in object_names:
            try:
                found.append(await self.of(api, name))
            except UnknownObject as unknown:
                hidden = unknown
        if not found and hidden is not None:
            raise hidden
        return found


descriptions: Final = Descriptions()


async def check_paths(api: SalesforceApi, object_name: str, paths: Iterable[str]) -> None:
    """Check that an object has these fields, before a query uses them.

    Raises:
        InvalidParams: names each field that the object does not have.
    """
    faults = await _faults(api, object_name, list(paths), TTL_S)
    if faults:  # a field made a moment ago is not unknown
        faults = await _faults(api, object_name, [fault.field for fault in faults], DOUBT_S)
    if faults:
        listed = ", ".join(fault.field for fault in faults[:5])
        raise InvalidParams(f"{object_name} has no field {listed}", details=faults[:20], sent=Sent.NO)


async def with_visible(
    api: SalesforceApi, object_name: str, paths: Sequence[str], look: Callable[[Sequence[str]], Awaitable[T]]
) -> T:
    """Query these fields, and again without those that the org hides from this user."""
    try:
        return await look(paths)
    except Rejected as rejected:
        if reason_of(rejected) != "INVALID_FIELD":
            raise
        facts = await descriptions.of(api, object_name)
        shown = [
            path
            for path in paths
            if path.partition(".")[0].lower() in (facts.relationships if "." in path else facts.fields)
        ]
        if shown == list(paths):
            raise
    return await look(shown)


async def check_names(api: SalesforceApi, object_name: str, fields: Mapping[str, Any]) -> None:
    """Check that an object has the fields that are to be written.

    Raises:
        InvalidParams: names each field that the object does not have.
    """
    unknown = await _unknown(api, object_name, fields, TTL_S)
    if unknown:  # a field made a moment ago is not unknown
        unknown = await _unknown(api, object_name, fields, DOUBT_S)
    if not unknown:
        return
    details = [Detail(field=f"fields.{name}", issue=f"{object_name} has no such field") for name in unknown]
    raise InvalidParams(
        f"{object_name} has no field {', '.join(unknown[:5])}", details=details[:20], sent=Sent.NO
    )


async def _unknown(
    api: SalesforceApi, object_name: str, fields: Mapping[str, Any], within_s: float
) -> list[str]:
    facts = await descriptions.of(api, object_name, within_s=within_s)
    return [
        name
        for name, value in fields.items()
        if name.lower() not in (facts.relationships if isinstance(value, dict) else facts.fields)
    ]


async def _faults(api: SalesforceApi, object_name: str, paths: list[str], within_s: float) -> list[Detail]:
    faults = []
    for path in paths:
        issue = await _fault(api, object_name, path.split("."), within_s)
        if issue is not None:
            faults.append(Detail(field=path, issue=issue))
    return faults


async def _fault(api: SalesforceApi, object_name: str, steps: list[str], within_s: float) -> str | None:
    """Return what is wrong with a path of fields, or None."""
    facts = await descriptions.of(api, object_name, within_s=within_s)
    if len(steps) == 1:
        return None if steps[0].lower() in facts.fields else f"{object_name} has no such field"
    targets = facts.relationships.get(steps[0].lower())
    if targets is None:
        return f"{steps[0]} is not a relationship of {object_name}"
    if len(targets) == 1:
        return await _fault(api, targets[0], steps[1:], within_s)
    if len(steps) == 2 and steps[1].lower() in NAME_FIELDS:
        return None
    return f"{steps[0]} may be a {' or '.join(targets[:4])}; it has Id, Name, Type and few others in common"


async def _fetch(api: SalesforceApi, object_name: str) -> Mapping[str, Any]:
    try:
        answer: Mapping[str, Any] = await api.run(lambda org: org.object(object_name).describe())
    except NotFound as unknown:
        message = f"there is no object {object_name}, or this user may not see it"
        raise UnknownObject(message, data={"object": object_name, "reason": reason_of(unknown)}) from None
    return answer


def _facts(answer: Mapping[str, Any], object_name: str, now: float) -> ObjectFacts:
    listed = answer.get("fields")
    fields = [
        each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    ]
    return ObjectFacts(
        name=str(answer.get("name") or object_name),
        label=str(answer.get("label") or object_name),
        is_createable=answer.get("createable") is True,
        is_updateable=answer.get("updateable") is True,
        is_deletable=answer.get("deletable") is True,
        fields={each["name"].lower(): _slim(each) for each in fields},
        described_at=now,
        relationships={
            str(each["relationshipName"]).lower(): tuple(map(str, each.get("referenceTo") or ()))
            for each in fields
            if each.get("relationshipName")
        },
    )


def _slim(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that are used, a fifth of what Salesforce sends."""
    kept = (
        "name",
        "label",
        "type",
        "length",
        "nillable",
        "defaultedOnCreate",
        "createable",
        "updateable",
        "externalId",
        "unique",
        "nameField",
        "restrictedPicklist",
        "referenceTo",
        "relationshipName",
    )
    slim = {name: described[name] for name in kept if name in described}
    values = described.get("picklistValues")
    if isinstance(values, list) and values:
        slim["picklist"] = [
            str(each.get("value")) for each in values if isinstance(each, dict) and each.get("active", True)
        ]
    return slim
