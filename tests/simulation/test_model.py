"""The protocol's model: no state refutes it, and each guard that it has is needed."""

import pytest

from tests.simulation.model import Kind, Model, Refuted, explore

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("undoes", [False, True])
@pytest.mark.parametrize("kind", ["plain", "looked"])
def test_no_state_of_the_protocol_breaks_its_promise(kind: Kind, undoes: bool) -> None:
    """KEYED has more states: `python -m tests.simulation --model` visits them, too."""
    states, _ = explore(Model(kind, undoes))

    assert states > 10_000


@pytest.mark.parametrize(
    "model",
    [
        Model("looked", undoes=False, notices_stalls=False),
        Model("keyed", notices_stalls=False),
        Model("looked", waits_for_landing=False),
        Model("keyed", waits_for_landing=False),
        Model("plain", looks=False),
        Model("keyed", records_undo=False),
    ],
    ids=str,
)
def test_without_a_guard_the_model_is_refuted(model: Model) -> None:
    with pytest.raises(Refuted):
        explore(model)
