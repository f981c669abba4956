"""`describe`: what a caller needs, and a line to call it."""

import json

from typer.testing import CliRunner

from worker.cli.app import app


def test_describe_shows_what_a_caller_needs() -> None:
    done = CliRunner().invoke(app, ["describe", "effects.find_caller", "--json"])
    (action,) = json.loads(done.stdout)["actions"]

    assert {"effect": "read", "returns": {"type": "string"}}.items() <= action.items()
    assert action["params"]["properties"]["phone"]["x-personal"] is True
    assert "phone: string, required, personal" in CliRunner().invoke(app, ["describe", "effects"]).stdout
    assert "base_url" in CliRunner().invoke(app, ["describe", "http"]).stdout


def test_the_call_line_can_be_copied_with_any_example() -> None:
    import shlex

    from connectors.sdk import Connector
    from worker.cli.catalogue import facts_of

    quoting = Connector("quoting")

    @quoting.action
    async def say(text: str = "it's") -> str:
        """Say it."""
        return text

    say.signature.model.model_fields["text"].examples = ["it's"]

    words = shlex.split(facts_of(quoting, say)["example"])

    assert {"text": "it's"} == json.loads(words[-1])
