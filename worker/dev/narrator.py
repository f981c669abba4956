"""Tells a person at a terminal what the demo does."""

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from schemas.job import Job
from schemas.result import Result


@dataclass(slots=True)
class Narrator:
    """Tells what was sent and what came back."""

    console: Console
    number: int = 0

    def say(self, text: str) -> None:
        """Say a plain line."""
        self.console.print(text, highlight=False)

    def fact(self, word: str, text: str) -> None:
        """Say something under the present step."""
        self.say(f"   {word:<9} {escape(text)}")

    def title(self, text: str) -> None:
        """Begin a step."""
        self.number += 1
        self.say(f"\n[bold]{self.number}. {escape(text)}[/]")

    def step(self, title: str, job: Job) -> None:
        """Begin a step with a job."""
        self.title(title)
        self.sent(job)

    def sent(self, job: Job) -> None:
        """Show a job."""
        params = ", ".join(f"{name}={value!r}" for name, value in job.params.items())
        self.fact("sent", f"{job.connector}.{job.action}({params})")

    def answer(self, result: Result, shown: str | None = None) -> None:
        """Show a reply.

        Args:
            shown: of a success, instead of all its data.
        """
        tries = f" after {result.attempts} tries" if result.attempts > 1 else ""
        if result.error is None:
            text = escape(shown or str(result.data))
            replayed = ", replayed" if result.replayed else ""
            self.say(
                f"   answered  [green]succeeded[/]{tries}{replayed} in {result.duration_ms:g} ms: {text}"
            )
            return
        self.say(f"   answered  [red]{result.error.code}[/]{tries}: {escape(result.error.message)}")
        self.say(f"   an agent may say: “{escape(result.error.say)}”")
