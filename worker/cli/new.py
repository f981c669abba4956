"""`new`: scaffold a third party's connector package that passes its own tests at once."""

import keyword
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.output import EXIT_USAGE, fail

#: The templates' folder, and each file with its template.
SCAFFOLD = Path(__file__).parent / "scaffold"
FILES = {
    "pyproject.toml": "pyproject.toml.tmpl",
    "README.md": "README.md.tmpl",
    ".gitignore": "gitignore.tmpl",
    ".github/workflows/check.yml": "ci/check.yml.tmpl",
    "{{name}}/__init__.py": "package/__init__.py.tmpl",
    "tests/fake_api.py": "tests/fake_api.py.tmpl",
    "tests/test_connector.py": "tests/test_connector.py.tmpl",
}


def new(
    name: Annotated[str, typer.Argument(help="The connector's name in jobs, such as acme_crm.")],
) -> None:
    """Create a connector package in ./NAME/: one READ and one KEYED action, tests, CI."""
    from importlib.metadata import version

    from schemas.job import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN[1:-1], name):
        fail(f"{name!r} is not a connector's name; it must match {NAME_PATTERN[1:-1]}", EXIT_USAGE)
    if (
        keyword.iskeyword(name)
        or name in sys.stdlib_module_names
        or name in {"connectors", "worker", "tests"}
    ):
        fail(f"{name!r} is reserved by Python or by us; choose another, such as {name}_connector", EXIT_USAGE)
    folder = Path(name)
    if folder.exists():
        fail(f"./{name} exists already; choose another name, or remove it", EXIT_USAGE)
    words = {
        "name": name,
        "title": name.replace("_", " ").title(),
        "class": "".join(part.capitalize() for part in name.split("_")),
        "distribution": name.replace("_", "-").strip("-"),
        "sdk_version": version("connectors-service"),
    }
    for target, template in FILES.items():
        path = folder / fill(target, words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fill((SCAFFOLD / template).read_text(), words))
    (folder / name / "py.typed").touch()
    print(f"Created ./{name}. Next:\n\n  cd {name}\n  pip install -e '.[dev]'\n  pytest\n")


def fill(text: str, words: dict[str, str]) -> str:
    """Return the template with each `{{name}}` replaced by its word."""
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text
