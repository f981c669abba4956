"""The records of the sandbox's org: written under Salesforce's rules."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

from connectors.salesforce.fields import full_id
from connectors.sandbox.salesforce.faults import Journal, Refusal
from connectors.sandbox.salesforce.refusals import (
    duplicates_refusal,
    unknown_field_refusal,
    unparsable_refusal,
)
from connectors.sandbox.salesforce.schema import Field, ObjectType, person_account_fields, standard_objects

Record = dict[str, Any]

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_ID = re.compile(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?")


@dataclass(frozen=True, slots=True)
class Rule:
    """A validation rule: a record for which `is_broken` returns True is refused."""

    object: str
    is_broken: Callable[[Record], bool]
    message: str
    field: str | None = None


@dataclass(slots=True)
class Store:
    """One org's objects, records and rules."""

    journal: Journal
    now: Callable[[], datetime]
    objects: dict[str, ObjectType] = field(default_factory=standard_objects)
    rules: list[Rule] = field(default_factory=list)
    #: Objects with a duplicate rule: two records may not have the same e-mail address.
    duplicate_rules: set[str] = field(default_factory=set)
    #: Those of them whose rule blocks, so that no header overrides it.
    blocking_rules: set[str] = field(default_factory=set)
    #: Object → the owner that its active assignment rule chooses, unless a call switches the rule off.
    assignment_rules: dict[str, str] = field(default_factory=dict)
    #: Autolaunched flows by API name: each takes its inputs, and returns its outputs or raises a Refusal.
    flows: dict[str, Callable[[Record], Record]] = field(default_factory=dict)
    _records: dict[str, dict[str, Record]] = field(default_factory=dict)
    _serial: int = 0
    _case_serial: int = 1000

    def object(self, name: str) -> ObjectType:
        """Return an object by its name, ignoring case.

        Raises:
            Refusal: there is none.
        """
        found = self.objects.get(name.lower())
        if found is None:
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    def add_field(self, object_name: str, added: Field) -> None:
        """Add a custom field to an object."""
        self.object(object_name).add(added)

    def add_object(self, name: str, prefix: str, *fields: Field) -> None:
        """Add a custom object with a name of its own."""
        base = standard_objects()["group"]
        made = ObjectType(name, prefix, {key: base.fields[key] for key in ("id", "isdeleted", "createddate")})
        made.add(
            Field("Name", is_name=True), Field("LastModifiedDate", "datetime", is_writeable=False), *fields
        )
        self.objects[name.lower()] = made

    def records(self, object_name: str) -> Iterator[Record]:
        """Return the records that are not deleted."""
        held = self._records.get(object_name.lower(), {})
        return (record for record in held.values() if not record["IsDeleted"])

    def find(self, object_name: str, record_id: str) -> Record:
        """Return a record by its id of 15 or 18 characters.

        Raises:
            Refusal: there is none, or it was deleted.
        """
        self.object(object_name)
        record = self._records.get(object_name.lower(), {}).get(full_id(record_id))
        if record is None:
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        if record["IsDeleted"]:
            raise Refusal(404, "ENTITY_IS_DELETED", "entity is deleted")
        return record

    def by_external_id(self, object_name: str, field_name: str, value: str) -> list[Record]:
        """Return the records with this value in an external-id field.

        Raises:
            Refusal: the field is not an external id.
        """
        found = self.object(object_name).find(field_name)
        if found is None or not (found.is_external_id or found.name == "Id"):
            raise Refusal(
                404,
                "NOT_FOUND",
                f"Provided external ID field does not exist or is not accessible: {field_name}",
            )
        return [
            record
            for record in self.records(object_name)
            if str(record.get(found.name, "")).casefold() == value.casefold()
        ]

    def enable_person_accounts(self) -> None:
        """Add person accounts to the org: a lead then needs no company."""
        self.object("Account").add(*person_account_fields())
        self.object("Lead").add(replace(_field(self.object("Lead"), "Company"), is_required=False))

    def insert(
        self,
        object_name: str,
        body: Mapping[str, Any],
        *,
        allow_duplicates: bool = False,
        auto_assign: bool = False,
    ) -> Record:
        """Create a record.

        Raises:
            Refusal: a rule of the object or the org is broken.
        """
        kind = self.object(object_name)
        values = self._checked(kind, body)
        for each in kind.fields.values():
            if each.default is not None or each.type == "boolean":
                values.setdefault(each.name, each.default if each.default is not None else False)
        missing = [
            each.name
            for each in kind.fields.values()
            if each.is_required
            and values.get(each.name) is None
            # A person account takes its name from its person.
            and not (kind.name == "Account" and each.name == "Name" and values.get("LastName"))
        ]
        if missing:
            message = f"Required fields are missing: [{', '.join(missing)}]"
            raise Refusal(400, "REQUIRED_FIELD_MISSING", message, fields=missing)
        self._serial += 1
        stamp = _stamp(self.now())
        record = {"Id": self._new_id(kind), "IsDeleted": False, "CreatedDate": stamp, **values}
        self._assign(kind, record, auto_assign=auto_assign)
        self._settle(kind, record)
        self._check_rules(kind, record, allow_duplicates=allow_duplicates)
        if kind.name == "Case":
            self._case_serial += 1
            record["CaseNumber"] = f"{self._case_serial:08d}"
        self._records.setdefault(kind.name.lower(), {})[record["Id"]] = record
        self.journal.write(self.now(), "created", kind.name, record["Id"], fields=sorted(values))
        return record

    def update(
        self,
        object_name: str,
        record: Record,
        body: Mapping[str, Any],
        *,
        allow_duplicates: bool = False,
        auto_assign: bool = False,
    ) -> None:
        """Change a record.

        Raises:
            Refusal: a rule is broken; nothing is changed.
        """
        kind = self.object(object_name)
        values = self._checked(kind, body)
        emptied = [name for name, value in values.items() if value is None and _field(kind, name).is_required]
        if emptied:
            message = f"Required fields are missing: [{', '.join(emptied)}]"
            raise Refusal(400, "REQUIRED_FIELD_MISSING", message, fields=emptied)
        changed = {**record, **values}
        self._assign(kind, changed, auto_assign=auto_assign)
        self._settle(kind, changed)
        self._check_rules(kind, changed, allow_duplicates=allow_duplicates)
        record.update(changed)
        self.journal.write(self.now(), "changed", kind.name, record["Id"], fields=sorted(values))

    def convert_lead(self, values: Mapping[str, str], *, allow_duplicates: bool) -> dict[str, str]:
        """Convert a lead, and return the ids of what it became.

        Raises:
            Refusal: the lead, its account or its contact cannot be converted.
        """
        lead = self.find("Lead", values["leadId"])
        if lead.get("IsConverted"):
            raise Refusal(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        statuses = [each["MasterLabel"] for each in self.records("LeadStatus") if each["IsConverted"]]
        if values.get("convertedStatus") not in statuses:
            raise Refusal(400, "INVALID_STATUS", "invalid convertedStatus")
        person = {name: lead.get(name) for name in ("FirstName", "LastName", "Email", "Phone", "Title")}
        account_id = values.get("accountId") or self._account_of(lead)["Id"]
        self.find("Account", account_id)
        contact_id = values.get("contactId") or str(
            self.insert("Contact", {**person, "AccountId": account_id}, allow_duplicates=allow_duplicates)[
                "Id"
            ]
        )
        made = {"accountId": str(account_id), "contactId": contact_id}
        if values.get("doNotCreateOpportunity") != "true":
            opportunity = {
                "Name": values.get("opportunityName") or f"{lead.get('Company') or lead['Name']}-",
                "StageName": "Prospecting",
                "CloseDate": self.now().date().isoformat(),
                "AccountId": account_id,
            }
            made["opportunityId"] = str(self.insert("Opportunity", opportunity)["Id"])
        lead.update({"IsConverted": True, "Status": values["convertedStatus"]})
        lead.update({f"Converted{name[0].upper()}{name[1:]}": value for name, value in made.items()})
        self.journal.write(self.now(), "converted", "Lead", lead["Id"])
        return made

    def _account_of(self, lead: Record) -> Record:
        if not lead.get("Company"):
            raise Refusal(
                400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]", fields=["Name"]
            )
        return self.insert("Account", {"Name": lead["Company"]})

    def delete(self, object_name: str, record: Record) -> None:
        """Move a record to the recycle bin."""
        record["IsDeleted"] = True
        self.journal.write(self.now(), "deleted", self.object(object_name).name, record["Id"])

    def snapshot(self) -> "dict[str, dict[str, Record]]":
        """Return a copy of the records, to restore them if a composite request fails."""
        return {
            name: {record_id: dict(record) for record_id, record in held.items()}
            for name, held in self._records.items()
        }

    def restore(self, records: "dict[str, dict[str, Record]]", effects: int) -> None:
        """Restore the records, and drop the effects since."""
        self._records = records
        del self.journal.effects[effects:]

    def _new_id(self, kind: ObjectType) -> str:
        digits, serial = "", self._serial
        while serial:
            serial, rest = divmod(serial, 62)
            digits = _DIGITS[rest] + digits
        return full_id(f"{kind.prefix}Sb{digits.rjust(10, '0')}")

    def _checked(self, kind: ObjectType, body: Mapping[str, Any]) -> Record:
        """Return the checked values, under the object's own field names."""
        values: Record = {}
        for name, value in body.items():
            if isinstance(value, dict):
                reference = kind.relationship(name)
                if reference is None:
                    raise unknown_field_refusal(kind, name)
                values[reference.name] = self._referred(reference, value)
                continue
            found = kind.find(name)
            if found is None:
                raise unknown_field_refusal(kind, name)
            if not found.is_writeable:
                message = (
                    f"Unable to create/update fields: {found.name}. Please check the security settings of this "
                    "field and verify that it is read/write for your profile or permission set."
                )
                raise Refusal(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, fields=[found.name])
            values[found.name] = None if value == "" else self._checked_value(found, value)
        return values

    def _referred(self, reference: Field, by: Mapping[str, Any]) -> str:
        name, value = next(iter(by.items()), ("", ""))
        found = [
            record
            for target in reference.reference_to
            if (declared := self.object(target).find(name)) is not None and declared.is_external_id
            for record in self.by_external_id(target, name, str(value))
        ]
        if len(found) != 1:
            message = f"Foreign key external ID: {value} not found for field {name} in entity {reference.relationship}"
            raise Refusal(400, "INVALID_FIELD", message)
        return str(found[0]["Id"])

    def _checked_value(self, found: Field, value: Any) -> Any:  # one branch a type
        if value is None:
            return None
        match found.type:
            case "boolean":
                if not isinstance(value, bool):
                    raise unparsable_refusal(found, value)
            case "int" | "double" | "currency":
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise unparsable_refusal(found, value)
                if abs(value) >= 10**15:
                    message = f"{found.name}: value outside of valid range on numeric field: {value}"
                    raise Refusal(400, "NUMBER_OUTSIDE_VALID_RANGE", message, fields=[found.name])
            case "date" | "datetime":
                _check_time(found, value)
            case "reference":
                if not isinstance(value, str) or not _ID.fullmatch(value):
                    message = f"{found.name}: id value of incorrect type: {value}"
                    raise Refusal(400, "MALFORMED_ID", message, fields=[found.name])
                return self._checked_reference(found, full_id(value))
            case _:
                return _checked_text(found, value)
        return value

    def _checked_reference(self, found: Field, record_id: str) -> str:
        for target in found.reference_to:
            record = self._records.get(target.lower(), {}).get(record_id)
            if record is not None and not record["IsDeleted"]:
                return record_id
        raise Refusal(
            400,
            "INVALID_CROSS_REFERENCE_KEY",
            f"invalid cross reference id: {found.name}",
            fields=[found.name],
        )

    def _assign(self, kind: ObjectType, record: Record, *, auto_assign: bool) -> None:
        if auto_assign and (owner := self.assignment_rules.get(kind.name)) is not None:
            record["OwnerId"] = owner

    def _settle(self, kind: ObjectType, record: Record) -> None:
        """Set the fields that follow from other fields."""
        record["LastModifiedDate"] = _stamp(self.now())
        if kind.name == "Account" and record.get("LastName"):
            record["IsPersonAccount"] = True
        if kind.find("LastName") is not None and (kind.name != "Account" or record.get("LastName")):
            record["Name"] = " ".join(filter(None, (record.get("FirstName"), record.get("LastName"))))
        if kind.name == "Case":
            record["IsClosed"] = record.get("Status") == "Closed"
            record["ClosedDate"] = record["LastModifiedDate"] if record["IsClosed"] else None

    def _check_rules(self, kind: ObjectType, record: Record, *, allow_duplicates: bool) -> None:
        for rule in self.rules:
            if rule.object == kind.name and rule.is_broken(record):
                fields = [] if rule.field is None else [rule.field]
                raise Refusal(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", rule.message, fields=fields)
        for each in kind.fields.values():
            value = record.get(each.name)
            if not each.is_unique or value is None:
                continue
            for other in self.records(kind.name):
                if (
                    other["Id"] != record["Id"]
                    and str(other.get(each.name)).casefold() == str(value).casefold()
                ):
                    message = f"duplicate value found: {each.name} duplicates value on record with id: {other['Id']}"
                    raise Refusal(400, "DUPLICATE_VALUE", message, fields=[])
        blocks = kind.name in self.blocking_rules
        if kind.name in self.duplicate_rules and (blocks or not allow_duplicates) and record.get("Email"):
            email = str(record["Email"]).casefold()
            same = [
                other
                for other in self.records(kind.name)
                if other["Id"] != record["Id"] and str(other.get("Email")).casefold() == email
            ]
            if same:
                raise duplicates_refusal(kind, same, may_save=not blocks)


def _field(kind: ObjectType, name: str) -> Field:
    found = kind.find(name)
    assert found is not None
    return found


def _checked_text(found: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise unparsable_refusal(found, value)
    if len(value) > found.length:
        message = f"{found.name}: data value too large: {value[:80]} (max length={found.length})"
        raise Refusal(400, "STRING_TOO_LONG", message, fields=[found.name])
    if found.type == "email" and not _EMAIL.fullmatch(value):
        message = f"{found.name}: invalid email address: {value}"
        raise Refusal(400, "INVALID_EMAIL_ADDRESS", message, fields=[found.name])
    if found.is_restricted and value not in found.picklist:
        message = f"{found.name}: bad value for restricted picklist field: {value}"
        raise Refusal(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, fields=[found.name])
    return value


def _check_time(found: Field, value: Any) -> None:
    try:
        kind = date if found.type == "date" else datetime
        kind.fromisoformat(value)
    except (ValueError, TypeError):
        raise unparsable_refusal(found, value) from None


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
