"""Our wheel, and environments that it is installed in."""

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "connectors" / "examples"

Environment = Callable[..., Path]


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a command to its end, and give what it printed."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment or None
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def build_wheel(project: Path, folder: Path) -> Path:
    """Build a project's wheel with the suite's own hatchling."""
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], project)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with our wheel installed; its dependencies come from the suite's own by path."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    borrowed = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    run(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)],
        folder,
    )
    # What a new user has beside it; ruff is a program, and the others run in this environment's Python.
    programs = {tool: f"{folder}/bin/python -m {tool}" for tool in ("pytest", "mypy")}
    for tool, program in {**programs, "ruff": Path(sys.executable).with_name("ruff")}.items():
        script = folder / "bin" / tool
        script.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        script.chmod(0o755)
    return folder
