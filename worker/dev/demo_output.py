"""The demo's output on the terminal: numbered steps, jobs and replies."""

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from schemas.job import Job
from schemas.result import Result


@dataclass(slots=True)
class DemoOutput:
    """Prints the jobs that were sent and their replies."""

    console: Console
    number: int = 0

    def line(self, text: str) -> None:
        """Print a plain line."""
        self.console.print(text, highlight=False)

    def fact(self, word: str, text: str) -> None:
        """Print a fact of the present step."""
        self.line(f"   {word:<9} {escape(text)}")

    def title(self, text: str) -> None:
        """Print the heading of a step."""
        self.number += 1
        self.line(f"\n[bold]{self.number}. {escape(text)}[/]")

    def step(self, title: str, job: Job) -> None:
        """Print the heading of a step and its job."""
        self.title(title)
        self.sent(job)

    def sent(self, job: Job) -> None:
        """Print a job."""
        params = ", ".join(f"{name}={value!r}" for name, value in job.params.items())
        self.fact("sent", f"{job.connector}.{job.action}({params})")

    def reply(self, result: Result, shown: str | None = None) -> None:
        """Print a reply.

        Args:
            shown: printed for a success instead of all its data.
        """
        attempts = f" after {result.attempts} attempts" if result.attempts > 1 else ""
        if result.error is None:
            text = escape(shown or str(result.data))
            replayed = ", replayed" if result.replayed else ""
            self.line(
                f"   reply     [green]succeeded[/]{attempts}{replayed} in {result.duration_ms:g} ms: {text}"
            )
            return
        self.line(f"   reply     [red]{result.error.code}[/]{attempts}: {escape(result.error.message)}")
        self.line(f"   an agent may say: “{escape(result.error.say)}”")
