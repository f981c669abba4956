"""Which logins are sent to a vault that counts refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from worker.credentials.login_gate import LoginGate, VaultLoginPolicy
from worker.credentials.vault_config import LoginRefused


class Gate:
    """A gate at a vault that refuses whatever it is sent, and counts."""

    def __init__(self, status: int = 400) -> None:
        self.now = 1000.0
        self.sent: list[tuple[float, str]] = []
        self.status = status
        self.gate = LoginGate(VaultLoginPolicy(), clock=lambda: self.now)

    def log_in(self, proof: str) -> bool:
        """Return whether it was sent."""
        try:
            self.gate.check(SecretStr(proof))
        except LoginRefused as refused:
            assert self.status == refused.status
            return False
        self.sent.append((self.now, proof))
        self.gate.refused(SecretStr(proof), LoginRefused("no", self.status))
        return True


def test_what_the_vault_judged_wrong_is_never_sent_again() -> None:
    gate = Gate()
    assert gate.log_in("wrong")

    gate.now += 86_400
    assert not gate.log_in("wrong")
    assert gate.log_in("another")


def test_a_role_that_may_be_locked_is_asked_again_after_five_minutes() -> None:
    gate = Gate(status=403)
    assert gate.log_in("right")

    gate.now += 299
    assert not gate.log_in("right")
    gate.now += 1
    assert gate.log_in("right")


def test_an_accepted_login_forgets_the_refused_ones() -> None:
    gate = Gate()
    for number in range(3):
        assert gate.log_in(f"wrong-{number}")
    assert not gate.log_in("right")

    gate.gate.accepted()

    assert gate.log_in("right")


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@given(steps=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 600)), max_size=60))
def test_no_quarter_of_an_hour_sees_more_than_three(status: int, steps: list[tuple[str, int]]) -> None:
    gate = Gate(status)

    for proof, pause_s in steps:
        gate.now += pause_s
        gate.log_in(proof)

    times = [at for at, _ in gate.sent]
    assert all(last - first >= 900 for first, last in zip(times, times[3:], strict=False))
