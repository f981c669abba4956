"""The wheel holds the three packages, and works outside the repository."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], ROOT)
    return next(folder.glob("*.whl"))


def test_it_holds_exactly_the_three_packages_typed(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {name for name in names if name.endswith(".py")}

    assert {"schemas", "connectors", "worker"} == {name.split("/")[0] for name in code}
    assert {
        *(f"{package}/py.typed" for package in ("schemas", "connectors", "worker")),
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "schemas" / "json").glob("*.json")),
    } == names - code
    assert not [name for name in code if name.startswith("worker/ops/") or "/test" in name]


def test_it_lists_its_connectors_in_a_clean_environment_outside_the_repository(
    wheel: Path, tmp_path: Path
) -> None:
    """Our dependencies come from the suite's environment by path; the wheel itself is installed."""
    python = _environment(tmp_path)
    _run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], tmp_path)
    site = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    borrowed = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(f"{borrowed}\n")

    listed = _run([str(Path(python).with_name("connectors")), "list"], tmp_path)
    where = _run([python, "-c", "import worker; print(worker.__file__)"], tmp_path)

    assert "dummy" in listed
    assert "http" in listed
    assert where.startswith(str(site))


@pytest.mark.registry
@pytest.mark.timeout(600)
def test_it_installs_from_the_registry_and_the_base_is_light(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path)
    _run([python, "-m", "pip", "install", "-q", str(wheel)], tmp_path)

    heavy = "aio_pika hvac googleapiclient sqlalchemy"
    code = f"import sys, connectors.sdk; print([name for name in {heavy.split()} if name in sys.modules])"

    assert "[]" == _run([python, "-c", code], tmp_path).strip()


def _environment(tmp_path: Path) -> str:
    venv.create(tmp_path / "venv", with_pip=True)
    return str(tmp_path / "venv" / "bin" / "python")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout
