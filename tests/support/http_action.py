"""The action `http.request`, run against an API of the test."""

import json
from typing import Any

from aiohttp import web

from connectors.http_request import HttpCredential, HttpResult, http, request
from connectors.sdk.context import Context
from connectors.sdk.http.client import HttpPool

CANARY = "canary/1f0e+2d=="


TURKISH = "Çağrı Şükrü İğdır"


XML = '<?xml version="1.0" encoding="%s"?>'


async def run(pool: HttpPool, document: dict[str, Any], *, key: str = "key-1", **params: Any) -> HttpResult:
    """Run the action as the worker does: read, call, dump."""
    context: Context[HttpCredential] = Context(
        job_id="job-1",
        tenant="acme",
        connector="http",
        action="request",
        idempotency_key=key,
        credential=http.read_credential(document),
        http=pool.client(tenant="acme", connector="http", credential="default"),
    )
    result = await request.call(request.signature.read(params), context)
    return HttpResult.model_validate(json.loads(json.dumps(request.dump(result), allow_nan=False)))


async def echo(received: web.Request) -> web.StreamResponse:
    return web.json_response(
        {
            "method": received.method,
            "path": received.raw_path,
            "headers": {name.lower(): value for name, value in received.headers.items()},
            "body": (await received.read()).decode(),
        }
    )
