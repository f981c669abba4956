"""Actions of the Salesforce connector, run on the sandbox as the worker runs them."""

from typing import Any

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import SalesforceSandbox
from connectors.sdk.context import Context
from connectors.sdk.http.client import HttpPool


class Bench:
    """The sandbox, a pool of connections, and a way to run actions."""

    def __init__(self, org: SalesforceSandbox, pool: HttpPool) -> None:
        self.org = org
        self.pool = pool
        self.document: dict[str, Any] = org.credential("client_credentials")

    def context(
        self,
        action: str = "query",
        *,
        document: dict[str, Any] | None = None,
        tenant: str = "acme",
        key: str = "key-1",
        attempt: int = 1,
        is_repeat: bool = False,
    ) -> Context[Any]:
        return Context(
            job_id="job-1",
            tenant=tenant,
            connector="salesforce",
            action=action,
            idempotency_key=key,
            credential=salesforce.read_credential(document or self.document),
            http=self.pool.client(tenant=tenant, connector="salesforce", credential="default"),
            attempt=attempt,
            is_repeat=is_repeat,
        )

    async def run(self, action: str, params: dict[str, Any] | None = None, **about: Any) -> Any:
        """Run an action as the worker does: parameters checked, the answer in JSON's types."""
        declared = salesforce.actions[action]
        model = declared.signature.read(params or {})
        return declared.dump(await declared.call(model, self.context(action, **about)))

    async def reconcile(self, action: str, params: dict[str, Any], **about: Any) -> Any:
        declared = salesforce.actions[action]
        model = declared.signature.read(params)
        return declared.dump(await declared.call_reconcile(model, self.context(action, **about)))

    async def undo(
        self, action: str, params: dict[str, Any] | None = None, *, result: Any = None, **about: Any
    ) -> None:
        declared = salesforce.actions[action]
        model = None if params is None else declared.signature.read(params)
        await declared.call_undo(self.context(action, **about), params=model, result=result)
