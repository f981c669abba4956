"""What every connector must pass: a class to subclass, and its checks as a list.

    class TestAcme(ConnectorContract):
        connector = acme

        def provider(self) -> FakeAcme:
            return FakeAcme()

        def credential(self, provider: FakeAcme, via: Via) -> dict[str, object]:
            return {"base_url": via(provider.url), "key": "a-secret-of-some-length"}

        def state(self, provider: FakeAcme) -> object:
            return dict(provider.contacts)

The checks are plain functions named `test_…`: pytest runs them without any plugin, `connectors check`
runs them without pytest. Each looks at every action that it concerns; what it finds wrong is one line an
action. A connector without a provider is held to what needs none.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any, ClassVar, Final

from connectors.sdk.connector import Action, Connector
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError
from connectors.sdk.http.status import status_error
from connectors.sdk.params import example_of
from connectors.sdk.testing.fault_proxy import CANARY, Fault, FaultProxy
from connectors.sdk.testing.kit import Kit
from connectors.sdk.testing.looks import (
    are_alike,
    return_fault,
    schema_fault,
    with_unicode,
    words_of,
    worst_lag_s,
)
from connectors.sdk.testing.provider import Asked
from connectors.sdk.testing.ran import Ran
from schemas.error import Category, Code

#: Gives the address that leads to a provider's URL through the proxy that fails on demand.
Via = Callable[[str], str]

#: Seconds until the deadline in the check where it comes meanwhile; they are skipped, not waited for.
DEADLINE_S: Final = 600.0
#: Seconds within which a cancelled action must have ended.
CANCEL_S: Final = 2.0
#: Seconds that the loop may be held up; a busy machine alone makes some tenths.
HELD_S: Final = 1.0
#: Every character that a key may have.
WILD_KEY: Final = "".join(map(chr, range(0x20, 0x7F)))

#: Codes that any action may fail with, undeclared: they are found out around it, or they pass.
COMMON_CODES: Final = frozenset(
    {
        *(code for code in Code if code.facts.category in {Category.CALLER, Category.CREDENTIAL}),
        *(code for code in Code if code.facts.retryable),
        Code.OUTCOME_UNKNOWN,
        Code.RESULT_TOO_LARGE,
    }
)
#: Statuses that providers refuse with; the shared HTTP layer knows what each means, a connector may know better.
REFUSED_WITH: Final = (400, 401, 403, 404, 409, 422, 429, 500, 503)

#: A check's name, what it promises, and the function.
Check = tuple[str, str, Callable[["ConnectorContract"], None]]
Work = Callable[["_Scene", "Action[..., Any]"], Awaitable[None]]


class ConnectorContract:
    """Hold a connector to what the worker and its callers count on.

    Override `connector`, and what concerns a provider; the rest is made up from the schemas.
    """

    connector: ClassVar[Connector[Any]]
    #: Checks that do not fit, with the actions they do not fit and the reason:
    #: `{"test_unicode_…": {"fail": "its code is one of a list"}}`; the action `*` stands for all.
    exempt: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    #: The checks that run nothing: what is declared.
    declared: ClassVar[Collection[str]] = (
        "test_every_action_says_what_it_does",
        "test_every_parameter_has_a_closed_and_typed_schema",
        "test_every_action_says_what_it_returns",
    )

    def provider(self) -> AbstractAsyncContextManager[Any]:
        """Create the fake provider, with what the examples need in it; `None` where there is none.

        A `FakeProvider`, a sandbox, or anything else that is `async with`; made anew for each run.
        """
        return nullcontext()

    def credential(self, provider: Any, via: Via) -> Mapping[str, Any] | None:
        """Create the secret's document; its addresses go through `via(provider.url)`."""
        return None

    def settings(self, provider: Any, via: Via) -> Mapping[str, str]:
        """Return what an operator would have set; its addresses go through `via(…)`."""
        return {}

    def example(self, action: str, provider: Any) -> Mapping[str, Any]:
        """Return parameters with which the action succeeds; the examples of its schema unless overridden."""
        return example_of(self.connector.actions[action].signature.model)

    def failures(self, action: str, provider: Any) -> Mapping[Code, Mapping[str, Any]]:
        """Return parameters with which the action fails as it declares: the code, and the parameters."""
        return {}

    def state(self, provider: Any) -> Any:
        """Copy what the provider holds, to be compared: what an effect changes, and nothing else."""
        return None

    def essence(self, data: Any) -> Any:
        """Return what of an answer must be the same when the same job is run again; drop times and the like."""
        return data

    def is_work(self, asked: Asked) -> bool:
        """Return whether a request may change something at the provider."""
        return asked.is_work

    def setup_method(self, method: Callable[..., None]) -> None:
        """Take down which check is made; pytest calls this before each."""
        self._check = method.__name__

    # The checks, from what is declared to what is done.

    def test_every_action_says_what_it_does(self) -> None:
        """Each action has a docstring, which people and language models choose it by."""
        self._hold(lambda action: None if action.description.strip() else "has no docstring")

    def test_every_parameter_has_a_closed_and_typed_schema(self) -> None:
        """Each parameter has a type, and unknown names are refused."""
        self._hold(schema_fault)

    def test_every_action_says_what_it_returns(self) -> None:
        """Each action has a return type; callers and the catalogue see its schema."""
        self._hold(return_fault)

    def test_every_action_has_an_example_that_fits(self) -> None:
        """The parameters shown in the catalogue are such as the action takes."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            ran = await scene.kit.run(action, scene.example(action), mode="validate")
            scene.expect(ran.data == {"valid": True}, f"refuses its own example: {ran.message}")

        self._each(check)

    def test_every_action_does_its_work(self) -> None:
        """Each example succeeds; what reads changes nothing."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            before = scene.state()
            ran = await scene.kit.run(action, scene.example(action))
            scene.expect(ran.code is None, f"fails with {ran.code}: {ran.message}")
            if scene.effect(action) is Effect.READ:
                scene.expect(before == scene.state(), "is declared READ, and changes something")

        self._each(check)

    def test_unknown_and_missing_parameters_are_refused_before_anything_is_sent(self) -> None:
        """Wrong parameters end in INVALID_PARAMS, and the provider hears nothing."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            ran = await scene.kit.run(action, {**scene.example(action), "no_such_parameter": 1})
            scene.expect(ran.code is Code.INVALID_PARAMS, f"takes an unknown parameter: {ran.code}")
            scene.expect(not scene.proxy.journal, "sends something before it has checked its parameters")

        self._each(check)

    def test_whatever_the_provider_refuses_with_becomes_a_declared_code(self) -> None:
        """Each refusal becomes the code that its status means, or one that the action declares."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            for status in REFUSED_WITH:
                scene.proxy.fail(Fault("refuse", status=status))
                ran = await scene.kit.run(action, scene.example(action))
                if scene.proxy.hit == 0:
                    return
                scene.expect(ran.code is not None, f"takes a status {status} for a success")
                meant = status_error(status, host="", headers={}, now=0.0).code
                scene.expect(
                    ran.code is None or ran.code in {meant, *action.errors, *COMMON_CODES},
                    f"fails with {ran.code} at status {status}; declare it in errors=, or map it",
                )
                scene.expect(
                    CANARY not in words_of(ran), f"repeats the provider's own words at status {status}"
                )

        self._each(check)

    def test_each_failure_has_the_code_that_is_declared(self) -> None:
        """The failures given as examples end in their codes, declare them, and change nothing."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            for code, params in self.failures(action.name, scene.provider).items():
                before = scene.state()
                ran = await scene.kit.run(action, params)
                scene.expect(
                    ran.code is code, f"is to fail with {code}, and ends in {ran.code}: {ran.message}"
                )
                scene.expect(
                    code in {*action.errors, *COMMON_CODES}, f"fails with {code}; declare it in errors="
                )
                scene.expect(before == scene.state(), f"fails with {code}, and changes something")

        self._each(check)

    def test_an_answer_that_is_no_answer_is_an_error_and_no_bug(self) -> None:
        """HTML in the place of JSON, or nothing at all, ends in a code of its own."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            for kind in ("garble", "empty"):
                scene.proxy.fail(Fault(kind))
                ran = await scene.kit.run(action, scene.example(action))
                scene.expect(
                    ran.code is not Code.CONNECTOR_ERROR, f"breaks on a {kind} answer: {ran.message}"
                )
                scene.expect(CANARY not in words_of(ran), f"repeats a {kind} answer's own words")

        self._each(check)

    def test_secrets_never_come_out(self) -> None:
        """No secret of the credential is in a result, an error, a log line or a progress note."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            for fault in (None, Fault("refuse", status=400), Fault("refuse", status=500), Fault("cut_after")):
                scene.proxy.fail(fault)
                ran = await scene.kit.run(action, scene.example(action))
                scene.expect(not ran.leaks, f"lets a secret out in: {', '.join(ran.leaks)}")

        self._each(check)

    def test_the_same_key_has_one_effect(self) -> None:
        """A KEYED action run twice under one key changes nothing the second time, ledger or no ledger."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if scene.effect(action) is not Effect.KEYED:
                return
            params = scene.example(action)
            first = await scene.kit.run(action, params, key="k")
            after = scene.state()
            scene.kit.forget()
            second = await scene.kit.run(action, params, key="k")
            scene.expect(second.code is None, f"fails the second time: {second.code}: {second.message}")
            if first.code is None and second.code is None:
                same = self.essence(first.data) == self.essence(second.data)
                scene.expect(same, "answers the second run otherwise than the first")
            scene.expect(after == scene.state(), "is declared KEYED, and has a second effect")

        self._each(check)

    def test_a_connection_cut_before_the_work_loses_nothing(self) -> None:
        """Cut before the work, a READ or KEYED action succeeds at the next try."""
        self._each(_cut("cut_before"))

    def test_a_connection_cut_after_the_work_has_one_effect(self) -> None:
        """Cut after the work, the effect is there once: found again, or said to be unknown."""
        self._each(_cut("cut_after"))

    def test_a_provider_that_hangs_ends_in_time_with_one_effect(self) -> None:
        """A provider that works and never answers is given up; the effect is there once at most."""
        self._each(_cut("hang_after"))

    def test_a_5xx_after_the_work_has_one_effect(self) -> None:
        """A provider that works and then fails is not taken for one that did nothing."""
        for status in (500, 503):
            self._each(_cut("fail_after", status=status))

    def test_a_redirected_write_is_no_success(self) -> None:
        """A write that is answered by a redirect did nothing, and is not told as done."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if scene.effect(action) is Effect.READ:
                return
            before = scene.state()
            scene.proxy.fail(Fault("redirect", hits=self.is_work))
            ran = await scene.kit.run(action, scene.example(action), key="k")
            if scene.proxy.hit:
                scene.expect(ran.code is not None, "takes a redirect of its write for a success")
                scene.expect(are_alike(before, scene.state()), "leaves something behind a redirected write")

        self._each(check)

    def test_a_failed_run_cleans_up_behind_a_rate_limit(self) -> None:
        """What an earlier request of a failed run did is undone, though the account is to slow down."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if scene.effect(action) is not Effect.KEYED:
                return  # an uncertain WRITE is OUTCOME_UNKNOWN
            before = scene.state()
            headers = {"Retry-After": "30"}
            scene.proxy.fail(Fault("refuse", status=429, headers=headers, skip=1, times=1, hits=self.is_work))
            deadline = scene.kit.clock.now() + timedelta(seconds=5)  # no second attempt
            ran = await scene.kit.run(action, scene.example(action), key="k", deadline=deadline)
            if scene.proxy.hit and ran.code is not None:
                said = scene.said(ran) - {"outcome", "last_code"}
                scene.expect(
                    are_alike(before, scene.state()) or bool(said),
                    "leaves something behind a rate limit, and does not say what",
                )

        self._each(check)

    def test_a_cancelled_run_ends_at_once(self) -> None:
        """An action that is cancelled lets go within two seconds, and swallows nothing."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if not action.is_async:
                return  # a thread cannot be cancelled; its result is dropped
            scene.proxy.fail(Fault("hang_before"))
            task = await scene.run_until_hit(action, scene.example(action))
            task.cancel()
            ended = await scene.kit.cancel(within_s=CANCEL_S)
            scene.expect(ended, f"goes on for {CANCEL_S:g} s after it was cancelled")

        self._each(check, timeout_s=10 * CANCEL_S)

    def test_the_loop_is_never_held_up(self) -> None:
        """An async action lets the others run; what blocks is a plain function, run in a thread."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if not action.is_async:
                return
            held_s = []
            for _ in range(2):  # what is slow the first time alone is an import
                lag = asyncio.create_task(worst_lag_s())
                await asyncio.sleep(0)
                await scene.kit.run(action, scene.example(action))
                lag.cancel()
                held_s.append(await lag)
            worst_s = min(held_s)
            scene.expect(worst_s < HELD_S, f"holds the loop, and every other job, for {worst_s:.1f} s")

        self._each(check)

    def test_nothing_is_sent_after_the_deadline(self) -> None:
        """A job whose deadline has passed is answered DEADLINE_EXCEEDED, and the provider hears nothing."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            past = scene.kit.clock.now() - timedelta(seconds=1)
            ran = await scene.kit.run(action, scene.example(action), deadline=past)
            scene.expect(ran.code is Code.DEADLINE_EXCEEDED, f"runs after its deadline: {ran.code}")
            scene.expect(not scene.proxy.journal, "sends something after the deadline")

        self._each(check)

    def test_a_deadline_that_comes_meanwhile_is_kept(self) -> None:
        """A provider that hangs does not hold the caller beyond the deadline."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            scene.proxy.fail(Fault("hang_before", times=1))
            deadline = scene.kit.clock.now() + timedelta(seconds=DEADLINE_S)
            task = await scene.run_until_hit(action, scene.example(action), deadline=deadline)
            scene.kit.clock.skip(DEADLINE_S)
            ran = await task
            if scene.proxy.hit:
                scene.expect(
                    ran.code is Code.DEADLINE_EXCEEDED or ran.code is Code.OUTCOME_UNKNOWN,
                    f"ends in {ran.code} though its provider had not answered by the deadline",
                )

        self._each(check)

    def test_unicode_goes_through(self) -> None:
        """Text of any script, quotes and slashes never end in a bug."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            for params in with_unicode(scene.example(action), action.signature.schema):
                ran = await scene.kit.run(action, params)
                scene.expect(ran.code is not Code.CONNECTOR_ERROR, f"breaks on Unicode: {ran.message}")

        self._each(check)

    def test_every_printable_key_is_taken(self) -> None:
        """An idempotency key of 255 printable characters works."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if scene.effect(action) is not Effect.READ:
                key = (WILD_KEY * 3)[:255]
                ran = await scene.kit.run(action, scene.example(action), key=key)
                scene.expect(ran.code is None, f"fails with a key of odd characters: {ran.message}")

        self._each(check)

    def test_an_undo_takes_the_effect_back_and_may_come_twice(self) -> None:
        """After the undo the provider holds what it held before, however often it is undone."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if not action.can_undo:
                return
            before, params = scene.state(), scene.example(action)
            done = await scene.kit.run(action, params, key="k")
            undone = await scene.kit.run(action, params, key="k", mode="undo")
            scene.expect(undone.code is None, f"cannot be undone: {undone.message}")
            scene.expect(before == scene.state(), "leaves something behind when it is undone")
            again = await scene.kit.run(action, params, key="k", mode="undo")
            scene.expect(again.code is None, f"cannot be undone twice: {again.message}")
            # What a dead worker left: the effect is gone, and no record says so.
            context = scene.kit.context(action, params, key="k")
            try:
                await action.call_undo(context, params=action.signature.read(dict(params)), result=done.data)
            except Exception as error:  # whatever it raises is the finding
                scene.expect(False, f"fails to undo what is not there any more: {type(error).__name__}")

        self._each(check)

    def test_an_undo_believes_only_a_proof(self) -> None:
        """A 404 without a word of the provider's is no proof that the effect is gone."""

        async def check(scene: "_Scene", action: Action[..., Any]) -> None:
            if not action.can_undo:
                return
            before, params = scene.state(), scene.example(action)
            await scene.kit.run(action, params, key="k")
            scene.proxy.fail(Fault("refuse", status=404, hits=self.is_work))
            undone = await scene.kit.run(action, params, key="k", mode="undo")
            if scene.proxy.hit and undone.code is None:
                scene.expect(
                    are_alike(before, scene.state()), "says that it undid what is still there (a bare 404)"
                )

        self._each(check)

    # How the checks are made.

    @classmethod
    def checks(cls) -> Iterator[Check]:
        """List the checks; those of a subclass last."""
        names = [name for base in reversed(cls.__mro__) for name in vars(base) if name.startswith("test_")]
        for name in dict.fromkeys(names):
            function = getattr(cls, name)
            yield name, (function.__doc__ or name).strip().splitlines()[0], function

    def _hold(self, fault_of: Callable[["Action[..., Any]"], str | None]) -> None:
        faults = [
            f"{action!r} {fault}" for action in self._concerned() if (fault := fault_of(action)) is not None
        ]
        assert not faults, "\n".join(faults)

    def _each(self, work: Work, *, timeout_s: float | None = None) -> None:
        """Do the work for every action, each with a provider of its own."""
        faults: list[str] = []

        async def all_of_them() -> None:
            for action in self._concerned():
                async with self._scene(timeout_s) as scene:
                    try:
                        await work(scene, action)
                    except AssertionError as fault:
                        scene.faults.append(str(fault))
                    except ConnectorError as fault:  # the check could not even begin
                        scene.faults.append(f"does not take its own example: {fault.code}: {fault.message}")
                    faults.extend(f"{action!r} {fault}" for fault in scene.faults)

        asyncio.run(all_of_them())
        assert not faults, "\n".join(dict.fromkeys(faults))

    def _concerned(self) -> list[Action[..., Any]]:
        exempt: Collection[str] = self.exempt.get(self._check, {})
        actions = self.connector.actions
        return [] if "*" in exempt else [actions[name] for name in actions if name not in exempt]

    @asynccontextmanager
    async def _scene(self, timeout_s: float | None) -> Any:
        async with self.provider() as provider, FaultProxy() as proxy:
            kit = Kit(
                self.connector,
                credential=self.credential(provider, proxy.via),
                settings=self.settings(provider, proxy.via),
                max_attempts=2,
                timeout_s=timeout_s,
            )
            async with kit:
                yield _Scene(self, provider, proxy, kit)


class _Scene:
    """One action's stage: its provider, the proxy before it, and a kit."""

    def __init__(self, contract: ConnectorContract, provider: Any, proxy: FaultProxy, kit: Kit) -> None:
        self.contract = contract
        self.provider = provider
        self.proxy = proxy
        self.kit = kit
        self.faults: list[str] = []

    def example(self, action: Action[..., Any]) -> Mapping[str, Any]:
        return self.contract.example(action.name, self.provider)

    def state(self) -> Any:
        return None if self.provider is None else self.contract.state(self.provider)

    def effect(self, action: Action[..., Any]) -> Effect:
        return self.kit.effect_of(action, self.example(action))

    def said(self, ran: Ran) -> set[str]:
        """Name what an error tells a program."""
        error = ran.result.error
        return set() if error is None or error.data is None else set(error.data)

    async def run_until_hit(
        self, action: Action[..., Any], params: Mapping[str, Any], **about: Any
    ) -> "asyncio.Task[Ran]":
        """Start a job, and wait until the fault has hit it, or it has ended."""
        task = asyncio.create_task(self.kit.run(action, params, **about))
        hit = asyncio.create_task(self.proxy.first_hit.wait())
        await asyncio.wait({hit, task}, return_when=asyncio.FIRST_COMPLETED)
        hit.cancel()
        return task

    def expect(self, holds: bool, fault: str) -> None:
        """Note what is wrong, and go on: one run of the checks tells everything."""
        if not holds:
            self.faults.append(fault)


def _cut(kind: Any, *, status: int = 500) -> Work:
    async def check(scene: _Scene, action: Action[..., Any]) -> None:
        params, effect = scene.example(action), scene.effect(action)
        before = scene.state()
        # What one effect looks like, for comparison, at a provider of its own.
        async with scene.contract._scene(None) as calm:
            await calm.kit.run(action, calm.example(action), key="k")
            one_effect = calm.state()
        hits = scene.contract.is_work if effect is not Effect.READ else _is_no_token_request
        scene.proxy.fail(Fault(kind, status=status, times=1, hits=hits))
        task = await scene.run_until_hit(action, params, key="k")
        if kind == "hang_after":
            scene.kit.end_calls()
        ran = await task
        if scene.proxy.hit == 0:
            return
        after = scene.state()
        if effect is Effect.WRITE:
            scene.expect(
                ran.code in {None, Code.OUTCOME_UNKNOWN},
                f"is a WRITE that was cut off, and ends in {ran.code} rather than OUTCOME_UNKNOWN",
            )
        else:
            scene.expect(ran.code is None, f"does not succeed at the next try: {ran.code}: {ran.message}")
        happened = ran.code is None or kind != "cut_before"
        scene.expect(
            are_alike(after, one_effect) if happened else after == before,
            "has another effect than one undisturbed run has",
        )

    return check


def _is_no_token_request(asked: Asked) -> bool:
    return not asked.is_token_request
