"""The resources of the sandbox's REST API."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final
from urllib.parse import unquote

from connectors.sandbox.salesforce.faults import Refusal
from connectors.sandbox.salesforce.schema import ObjectType
from connectors.sandbox.salesforce.search import render, run_query, run_search
from connectors.sandbox.salesforce.soql import parse_soql, parse_sosl
from connectors.sandbox.salesforce.store import Record, Store

#: Most calls in one composite request.
MAX_COMPOSITE: Final = 25
#: Records of one page unless the caller asks for another size.
PAGE_SIZE: Final = 2000
MIN_PAGE_SIZE: Final = 200


@dataclass(frozen=True, slots=True)
class Request:
    """A call with its path split."""

    method: str
    #: Decoded segments behind `/services/data/v62.0/`.
    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None
    version: str = "v62.0"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int = 200
    body: Any = None


@dataclass(slots=True)
class Api:
    """The REST API of one org."""

    store: Store
    daily_limit: int = 15_000
    used: int = 0
    _pages: dict[str, list[Record]] = field(default_factory=dict)

    def operation(self, request: Request) -> str:
        """Return the operation of a call, the name used by faults and the journal's counts."""
        head, size = request.path[0] if request.path else "", len(request.path)
        if head == "actions":
            return "flow"
        if head != "sobjects" or size < 2:
            return head or "versions"
        if size == 2:
            return "create" if request.method == "POST" else "describe"
        if size == 3 and request.path[2] == "describe":
            return "describe"
        if request.method == "PATCH":
            return "upsert" if size == 4 else "update"
        return {"GET": "get", "DELETE": "delete"}.get(request.method, "unknown")

    def answer(self, request: Request) -> Reply:
        """Return the answer to a call.

        Raises:
            Refusal: as Salesforce would refuse it.
        """
        known: dict[tuple[str, str], Callable[[Request], Reply]] = {
            ("GET", "query"): self._query,
            ("GET", "search"): self._search,
            ("GET", "limits"): self._limits,
            ("GET", ""): self._resources,
            ("POST", "composite"): self._composite,
        }
        head = request.path[0] if request.path else ""
        if head == "sobjects":
            return self._sobjects(request)
        if head == "actions":
            return self._flow(request)
        if (request.method, head) not in known:
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        return known[request.method, head](request)

    def _query(self, request: Request) -> Reply:
        if len(request.path) == 2:
            return self._page(request, request.path[1])
        query = parse_soql(_asked(request))
        found = run_query(self.store, query)
        if query.is_count:
            return Reply(200, {"totalSize": len(found), "done": True, "records": []})
        locator = f"01g{token_hex(6)}AAA"
        self._pages[locator] = found
        return self._page(request, f"{locator}-0")

    def _page(self, request: Request, name: str) -> Reply:
        locator, _, start = name.partition("-")
        if locator not in self._pages or not start.isdigit():
            raise Refusal(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        found, offset = self._pages[locator], int(start)
        end = offset + _page_size(request.headers)
        answer = {"totalSize": len(found), "done": end >= len(found), "records": found[offset:end]}
        if not answer["done"]:
            answer["nextRecordsUrl"] = f"/services/data/{request.version}/query/{locator}-{end}"
        else:
            del self._pages[locator]
        return Reply(200, answer)

    def _search(self, request: Request) -> Reply:
        return Reply(200, {"searchRecords": run_search(self.store, parse_sosl(_asked(request)))})

    def _resources(self, request: Request) -> Reply:
        names = ("sobjects", "query", "search", "limits", "composite")
        return Reply(200, {name: f"/services/data/{request.version}/{name}" for name in names})

    def _limits(self, _request: Request) -> Reply:
        daily = {"Max": self.daily_limit, "Remaining": max(self.daily_limit - self.used, 0)}
        return Reply(200, {"DailyApiRequests": daily, "DataStorageMB": {"Max": 1024, "Remaining": 1000}})

    def _flow(self, request: Request) -> Reply:
        """Run a flow; there is no resource to convert a lead here, as in every org."""
        flow = self.store.flows.get(request.path[3]) if request.path[1:3] == ("custom", "flow") else None
        if flow is None or request.method != "POST":
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        results = []
        for values in _body(request).get("inputs") or [{}]:
            outputs, errors = {"Flow__InterviewStatus": "Finished"}, None
            try:
                outputs |= flow(values)
            except Refusal as refusal:
                fault = {
                    "statusCode": refusal.code,
                    "message": refusal.message,
                    "fields": refusal.fields or [],
                }
                errors = [fault]
            results.append(
                {
                    "actionName": request.path[3],
                    "errors": errors,
                    "isSuccess": errors is None,
                    "outputValues": None if errors else outputs,
                }
            )
        return Reply(200 if all(each["isSuccess"] for each in results) else 400, results)

    def _composite(self, request: Request) -> Reply:
        """Run several calls in one; with `allOrNone`, undo all of them if one fails."""
        body = request.body if isinstance(request.body, dict) else {}
        parts = body.get("compositeRequest") or []
        if not parts or len(parts) > MAX_COMPOSITE:
            raise Refusal(400, "INVALID_INPUT", f"a composite request has 1 to {MAX_COMPOSITE} subrequests")
        before, effects = self.store.snapshot(), len(self.store.journal.effects)
        results = [self._part(part, request) for part in parts]
        if body.get("allOrNone") and any(result["httpStatusCode"] >= 400 for result in results):
            self.store.restore(before, effects)
            halted = Refusal(
                400, "PROCESSING_HALTED", "The transaction was rolled back since another operation failed"
            )
            results = [
                result
                if result["httpStatusCode"] >= 400
                else {**result, "body": halted.body(), "httpStatusCode": 400}
                for result in results
            ]
        return Reply(200, {"compositeResponse": results})

    def _part(self, part: Mapping[str, Any], request: Request) -> dict[str, Any]:
        root = f"/services/data/{request.version}/"
        url = str(part.get("url", ""))
        try:
            if not url.startswith(root):
                raise Refusal(400, "INVALID_INPUT", "a subrequest's url must begin with the API's path")
            path = tuple(unquote(segment) for segment in url.removeprefix(root).split("/") if segment)
            headers = {**request.headers, **(part.get("httpHeaders") or {})}
            inner = Request(str(part["method"]), path, {}, headers, part.get("body"), request.version)
            reply = self.answer(inner)
        except Refusal as refusal:
            reply = Reply(refusal.status, refusal.body())
        return {
            "body": reply.body,
            "httpHeaders": {},
            "httpStatusCode": reply.status,
            "referenceId": part.get("referenceId"),
        }

    def _sobjects(self, request: Request) -> Reply:  # one return a resource
        method, path, store = request.method, request.path, self.store
        if len(path) == 1:
            return Reply(200, {"sobjects": [_short(each) for each in store.objects.values()]})
        kind = store.object(path[1])
        if len(path) == 2 and method == "POST":
            record = store.insert(kind.name, _body(request), **_save_options(request))
            return Reply(201, {"id": record["Id"], "success": True, "errors": []})
        if len(path) == 3 and path[2] == "describe" and method == "GET":
            return Reply(200, kind.describe())
        if len(path) == 3:
            return self._one(request, kind, store.find(kind.name, path[2]))
        if len(path) == 4:
            return self._by_external_id(request, kind)
        raise Refusal(405, "METHOD_NOT_ALLOWED", "HTTP Method not allowed")

    def _one(self, request: Request, kind: ObjectType, record: Record) -> Reply:
        if request.method == "GET":
            asked = request.query.get("fields")
            names = asked.split(",") if asked else [each.name for each in kind.fields.values()]
            return Reply(200, render(self.store, kind, record, tuple(names)))
        if request.method == "PATCH":
            self.store.update(kind.name, record, _body(request), **_save_options(request))
            return Reply(204)
        if request.method == "DELETE":
            self.store.delete(kind.name, record)
            return Reply(204)
        raise Refusal(405, "METHOD_NOT_ALLOWED", "HTTP Method not allowed")

    def _by_external_id(self, request: Request, kind: ObjectType) -> Reply:
        _, _, name, value = request.path
        found = self.store.by_external_id(kind.name, name, value)
        if len(found) > 1:
            urls = [f"/services/data/{request.version}/sobjects/{kind.name}/{each['Id']}" for each in found]
            return Reply(300, urls)
        if request.method != "PATCH":
            if not found:
                raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
            return self._one(request, kind, found[0])
        body = _body(request)
        if name.lower() in {each.lower() for each in body}:
            message = f"The {name} field should not be specified in the sobject data."
            raise Refusal(400, "INVALID_FIELD", message)
        if found:
            self.store.update(kind.name, found[0], body, **_save_options(request))
            return Reply(200, {"id": found[0]["Id"], "success": True, "errors": [], "created": False})
        record = self.store.insert(kind.name, {**body, name: value}, **_save_options(request))
        return Reply(201, {"id": record["Id"], "success": True, "errors": [], "created": True})


def _asked(request: Request) -> str:
    if "q" not in request.query:
        raise Refusal(400, "MALFORMED_QUERY", "A query string has to be specified")
    return request.query["q"]


def _body(request: Request) -> dict[str, Any]:
    if not isinstance(request.body, dict):
        raise Refusal(400, "JSON_PARSER_ERROR", "The HTTP entity body is required")
    return {name: value for name, value in request.body.items() if name != "attributes"}


def _save_options(request: Request) -> dict[str, bool]:
    headers = {name.lower(): value.replace(" ", "").lower() for name, value in request.headers.items()}
    return {
        "allow_duplicates": "allowsave=true" in headers.get("sforce-duplicate-rule-header", ""),
        "auto_assign": headers.get("sforce-auto-assign", "true") != "false",
    }


def _page_size(headers: Mapping[str, str]) -> int:
    options = headers.get("Sforce-Query-Options", "")
    size = options.partition("batchSize=")[2].partition(",")[0].strip()
    return min(max(int(size), MIN_PAGE_SIZE), PAGE_SIZE) if size.isdigit() else PAGE_SIZE


def _short(kind: ObjectType) -> dict[str, Any]:
    return {name: value for name, value in kind.describe().items() if name != "fields"}


def read_json(body: bytes) -> Any:
    """Return the parsed body.

    Raises:
        Refusal: it is not JSON.
    """
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        raise Refusal(400, "JSON_PARSER_ERROR", "Unexpected character") from None
