"""The examples in the READMEs run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "connectors/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_python_examples_run(page: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict[str, object] = {}

    for example in examples:
        exec(compile(example, page, "exec"), names)

    assert examples


@pytest.mark.integration
@pytest.mark.parametrize("way", ["greet", "greet_by_hand"])
async def test_the_readme_publishes_a_job_and_reads_the_answer(
    way: str, broker_url: str, start_worker: object
) -> None:
    await start_worker(broker_url)  # type: ignore[operator]
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)

    if way == "greet":
        assert await names["greet"](broker_url) == "hi"  # type: ignore[operator]
    else:
        assert names["greet_by_hand"](broker_url)["data"] == {"received_message": "hi"}  # type: ignore[operator]


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in ROOT.glob("**/*.md"):
        if ".venv" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
