"""A connector and its actions: what an author declares, what the worker runs."""

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, ParamSpec, TypeAlias, get_type_hints, overload

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypeVar

from connectors.sdk.context import Context, credential_of, is_context
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent
from connectors.sdk.params import Signature
from schemas.error import Code
from schemas.job import NAME_PATTERN, describe

#: Seconds an action gets unless it declares otherwise. A caller on the line will not wait longer.
DEFAULT_TIMEOUT_S: Final = 30.0

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
UndoT = TypeVar("UndoT", bound=Callable[..., Coroutine[Any, Any, Any]])
CredentialT = TypeVar("CredentialT", default=Any)
ModelT = TypeVar("ModelT", bound=BaseModel)

#: An effect that depends on the job: `(params, credential) -> Effect`; the credential is None where the
#: question comes before the secret is read.
EffectOf: TypeAlias = Callable[[Any, CredentialT | None], Effect]
#: Where a connector's actions run: in the worker's own process, or in one of the connector's.
Isolation: TypeAlias = Literal["worker", "process"]
#: What an action says of how it may fail: the class that it raises, or a code that has none.
Failure: TypeAlias = Code | type[ConnectorError]


class Action(Generic[P, R]):
    """One thing a connector can do.

    Created by `@connector.action`; calling it calls the function, as in a unit test.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        connector: str,
        name: str,
        effect: Effect | EffectOf[Any],
        timeout_s: float,
        errors: Sequence[Failure],
        lands_within_s: float | None = None,
    ) -> None:
        self.function = function
        self.connector = connector
        self.name = name
        self.effect = effect
        self.timeout_s = timeout_s
        self._lands_within_s = lands_within_s
        self.errors = tuple(each if isinstance(each, Code) else each.code for each in errors)
        self.description = inspect.getdoc(function) or ""
        self.is_async = inspect.iscoroutinefunction(function)
        #: Whether it runs in a process that can be killed; the worker decides that before it starts.
        self.is_isolated = False
        self.signature = Signature(function)
        self._reconcile: tuple[Callable[..., Any], Signature] | None = None
        self._undo: tuple[Callable[..., Any], dict[str, Any]] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, as a unit test does."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<action {self.connector}.{self.name}>"

    def effect_of(self, params: BaseModel | None, credential: Any) -> Effect:
        """Return the effect of running this job."""
        return self.effect if isinstance(self.effect, Effect) else self.effect(params, credential)

    def lands_within_s(self, effect: Effect) -> float:
        """Return the seconds after its start within which a call may still have its effect, though its worker died.

        A synchronous function cannot be stopped at its timeout, so a WRITE of one lands at any time, unless its
        author declares a bound, or it runs in a process that dies with its worker.
        """
        if self._lands_within_s is not None:
            return self._lands_within_s
        can_end = self.is_async or self.is_isolated or effect is not Effect.WRITE
        return self.timeout_s if can_end else math.inf

    @overload
    def reconcile(
        self: "Action[P, Coroutine[Any, Any, T]]", function: Callable[Q, Coroutine[Any, Any, T | None]]
    ) -> Callable[Q, Coroutine[Any, Any, T | None]]: ...

    @overload
    def reconcile(
        self, function: Callable[Q, Coroutine[Any, Any, R | None]]
    ) -> Callable[Q, Coroutine[Any, Any, R | None]]: ...

    def reconcile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Declare how to find out whether an uncertain run happened.

        The function takes the action's parameters and returns the action's result if the effect is
        there, None if it certainly is not; it raises if it cannot tell.
        """
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{self!r}: its reconcile must be an async function")
        signature = Signature(function)
        if signature.model.model_fields.keys() != self.signature.model.model_fields.keys():
            raise TypeError(f"{self!r}: its reconcile must take the same parameters as the action")
        self._reconcile = (function, signature)
        return function

    def undo(self, function: UndoT) -> UndoT:
        """Declare how to undo the effect (compensation).

        The function may take `result` (what the run returned, or None), `params` (the model of the
        job's parameters, or None if the undo came without) and a Context; undoing an effect that is
        gone already is a success.
        """
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{self!r}: its undo must be an async function")
        hints = get_type_hints(function)
        unknown = [name for name, hint in hints.items() if not is_context(hint)]
        if surplus := set(unknown) - {"params", "result", "return"}:
            raise TypeError(f"{self!r}: its undo takes params, result and a Context, not {sorted(surplus)}")
        self._undo = (function, hints)
        return function

    @property
    def can_reconcile(self) -> bool:
        """Whether an uncertain run can be looked up."""
        return self._reconcile is not None

    @property
    def needs_context(self) -> bool:
        """Whether running it takes a Context, and with it the HTTP client."""
        is_given = self.signature.context_name is not None
        return is_given or self.is_isolated or self.can_reconcile or self.can_undo

    @property
    def can_undo(self) -> bool:
        """Whether an effect can be undone."""
        return self._undo is not None

    def call(self, params: BaseModel, context: Context[Any] | None) -> Any:
        """Call the function; returns a coroutine if it is asynchronous."""
        return self.function(**self.signature.arguments(params, context))  # type: ignore[call-arg]

    async def call_reconcile(self, params: BaseModel, context: Context[Any]) -> Any:
        """Look up whether the effect is there; return the result, or None."""
        assert self._reconcile is not None
        function, signature = self._reconcile
        return await function(**signature.arguments(params, context))

    async def call_undo(self, context: Context[Any], *, params: BaseModel | None, result: Any) -> None:
        """Undo the effect."""
        assert self._undo is not None
        function, hints = self._undo
        known = {"params": params, "result": result}
        await function(
            **{
                name: context if is_context(hint) else known[name]
                for name, hint in hints.items()
                if name != "return"
            }
        )

    def dump(self, value: Any) -> Any:
        """Return a returned value in JSON's types.

        Raises:
            ConnectorError: the function returned another type than it declares.
        """
        try:
            return self.signature.returns.dump_python(value, mode="json", warnings="error")
        except (PydanticSerializationError, ValueError, RecursionError):
            raise ConnectorError(
                f"{self.connector}.{self.name} returned a {type(value).__name__}, not what it declares",
                sent=Sent.UNCERTAIN,
            ) from None


@dataclass(frozen=True, slots=True)
class UrlSetting:
    """An address that an operator may set for a connector: `CONNECTORS_<CONNECTOR>_<NAME>`.

    Args:
        name: in lower case, such as `api_url`.
        default: what holds unless the operator sets another.
        description: for the catalogue and `connectors config`.
    """

    name: str
    default: str
    description: str = ""


class Connector(Generic[CredentialT]):
    """A named set of actions on one kind of system.

    Args:
        name: its name in jobs, `[a-z][a-z0-9_]{0,62}`.
        title: its name for people.
        credential: the pydantic model of the secret's fields; None if no secret is needed.
        settings: what an operator may set; `connector.settings` holds the values in force.
        isolation: `process` runs its actions in a process of the connector's own, which can hang, crash or block
            its loop without harm to others; `worker` in the worker's. If None, the synchronous actions of a third
            party have a process of their own, all others run in the worker's.
    """

    @overload
    def __init__(
        self: "Connector[None]",
        name: str,
        *,
        title: str = ...,
        settings: Sequence[UrlSetting] = ...,
        isolation: Isolation | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: "Connector[ModelT]",
        name: str,
        *,
        title: str = ...,
        credential: type[ModelT],
        settings: Sequence[UrlSetting] = ...,
        isolation: Isolation | None = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        *,
        title: str = "",
        credential: type[BaseModel] | None = None,
        settings: Sequence[UrlSetting] = (),
        isolation: Isolation | None = None,
    ) -> None:
        if isolation not in (None, "worker", "process"):
            raise ValueError(f"connector {name!r}: isolation is 'worker' or 'process', not {isolation!r}")
        if not re.fullmatch(NAME_PATTERN[1:-1], name):
            raise ValueError(f"connector {name!r}: a name is {NAME_PATTERN[1:-1]}")
        self.name = name
        self.title = title or name.replace("_", " ").title()
        self.credential = credential
        self.declared_settings = tuple(settings)
        self.isolation = isolation
        #: The values in force; the worker puts in what the operator has set before it starts.
        self.settings: dict[str, str] = {each.name: each.default for each in settings}
        self._actions: dict[str, Action[..., Any]] = {}
        self._check: Callable[[Context[Any]], Awaitable[None]] | None = None

    def __repr__(self) -> str:
        return f"<connector {self.name}>"

    @property
    def actions(self) -> Mapping[str, Action[..., Any]]:
        """The actions by name."""
        return MappingProxyType(self._actions)

    @overload
    def action(self, function: Callable[P, R], /) -> Action[P, R]: ...

    @overload
    def action(
        self,
        /,
        *,
        effect: Effect | EffectOf[CredentialT] = ...,
        timeout_s: float = ...,
        name: str | None = ...,
        errors: Sequence[Failure] = ...,
        lands_within_s: float | None = ...,
    ) -> Callable[[Callable[P, R]], Action[P, R]]: ...

    def action(
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        effect: Effect | EffectOf[CredentialT] = Effect.WRITE,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        name: str | None = None,
        errors: Sequence[Failure] = (),
        lands_within_s: float | None = None,
    ) -> Action[P, R] | Callable[[Callable[P, R]], Action[P, R]]:
        """Register a function, asynchronous or not, as an action.

        Args:
            effect: what running it twice does; by default it is a WRITE and never repeated blindly.
            timeout_s: seconds until the call is given up.
            errors: how it may fail: the classes that it raises, or codes. The catalogue shows them, and
                the contract test holds the action to them.
            lands_within_s: seconds after which a call has certainly ended, whatever became of its worker; for a
                synchronous WRITE, which cannot be stopped at `timeout_s`.

        Raises:
            TypeError: the function cannot be an action, or wants another connector's credential.
        """

        def register(function: Callable[P, R]) -> Action[P, R]:
            action_name = name or function.__name__
            if not re.fullmatch(NAME_PATTERN[1:-1], action_name):
                raise ValueError(f"action {self.name}.{action_name!r}: a name is {NAME_PATTERN[1:-1]}")
            if action_name in self._actions:
                raise ValueError(f"action {self.name}.{action_name} is declared twice")
            action: Action[P, R] = Action(
                function,
                connector=self.name,
                name=action_name,
                effect=effect,
                timeout_s=timeout_s,
                errors=errors,
                lands_within_s=lands_within_s,
            )
            self._check_credential(action)
            self._actions[action_name] = action
            return action

        return register if function is None else register(function)

    def _check_credential(self, action: Action[..., Any]) -> None:
        wanted = credential_of(action.function)
        given = self.credential or type(None)
        if isinstance(wanted, type) and not issubclass(given, wanted):
            raise TypeError(
                f"{action!r} wants a Context[{wanted.__name__}], and the connector's credential is "
                f"{given.__name__}"
            )

    def read_credential(self, document: Mapping[str, Any]) -> CredentialT:
        """Return the secret checked against the connector's model.

        Raises:
            CredentialInvalid: names the wrong fields, never their values.
        """
        if self.credential is None:
            return None  # type: ignore[return-value]  # then CredentialT is None
        try:
            return self.credential.model_validate(dict(document))  # type: ignore[return-value]  # a CredentialT
        except ValidationError as error:
            details = describe(error)
            wrong = "; ".join(map(str, details[:3]))
            raise CredentialInvalid(f"the credential is malformed: {wrong}", details=details) from None

    def check(
        self, function: Callable[[Context[Any]], Awaitable[None]]
    ) -> Callable[[Context[Any]], Awaitable[None]]:
        """Declare how to ask the provider whether it accepts a credential, by a call that changes nothing.

        The function raises if it does not; `connectors credentials check` runs it.
        """
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{self!r}: its check must be an async function")
        self._check = function
        return function

    @property
    def needs_context(self) -> bool:
        """Whether running one of its actions takes a Context, and with it the HTTP client."""
        return any(action.needs_context for action in self._actions.values())

    @property
    def can_check(self) -> bool:
        """Whether the provider can be asked about a credential."""
        return self._check is not None

    async def call_check(self, context: Context[Any]) -> None:
        """Ask the provider whether it takes the context's credential."""
        assert self._check is not None
        await self._check(context)
