"""The wheel holds the three packages, and works outside the repository."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, run

pytestmark = pytest.mark.integration

#: What the base install must not bring.
HEAVY = ("aiormq", "hvac", "googleapiclient", "asyncpg", "typer", "loguru", "cryptography")
#: Seconds that `import connectors.sdk` may take.
IMPORT_S = 0.3


def test_it_holds_exactly_the_three_packages_typed(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {name for name in names if name.endswith(".py")}

    assert {"schemas", "connectors", "worker"} == {name.split("/")[0] for name in code}
    assert {
        *(f"{package}/py.typed" for package in ("schemas", "connectors", "worker")),
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "schemas" / "json").glob("*.json")),
        *(
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "worker" / "cli" / "scaffold").rglob("*.tmpl")
        ),
    } == names - code
    assert not [name for name in code if name.startswith("worker/ops/") or "/test_" in name]


def test_it_lists_its_connectors_in_an_environment_outside_the_repository(
    environment: Path, tmp_path: Path
) -> None:
    listed = run([str(environment / "bin" / "connectors"), "list"], tmp_path)
    where = run(
        [str(environment / "bin" / "python"), "-c", "import worker; print(worker.__file__)"], tmp_path
    )

    assert "dummy" in listed
    assert "http" in listed
    assert where.startswith(str(environment))


def test_the_sdk_is_imported_fast_and_alone() -> None:
    took_s, modules = _import_sdk(sys.executable, ROOT)

    assert took_s < IMPORT_S
    assert set() == {*HEAVY, "httpx", "aiohttp", "pytest", "worker"} & modules


@pytest.mark.registry
@pytest.mark.timeout(600)
def test_it_installs_from_the_registry_and_the_base_is_light(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    site = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    before = _size_bytes(site)
    run([python, "-m", "pip", "install", "-q", str(wheel)], tmp_path)
    installed = {
        each["name"].lower()
        for each in json.loads(run([python, "-m", "pip", "list", "--format=json"], tmp_path))
    }
    took_s, modules = _import_sdk(python, tmp_path)

    with capsys.disabled():
        print(
            f"\nbase install: {(_size_bytes(site) - before) / 2**20:.1f} MiB, import {took_s * 1000:.0f} ms"
        )
    assert set() == {"aiormq", "hvac", "google-api-python-client", "asyncpg", "typer"} & installed
    assert took_s < IMPORT_S
    assert set() == {*HEAVY, "httpx", "aiohttp", "worker"} & modules
    without = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "connectors"), "list"], capture_output=True, text=True, check=False
    )
    assert 0 != without.returncode  # the command line is the worker's


def _import_sdk(python: str, folder: Path) -> tuple[float, set[str]]:
    """Import it a few times; give the shortest time, and what came along.

    Of the processor, which is what an import takes: others may keep the machine busy.
    """
    code = (
        "import sys, time; began = time.process_time(); import connectors.sdk; "
        "took_s = time.process_time() - began; import json; "
        "print(json.dumps([took_s, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    runs = [json.loads(run([python, "-c", code], folder)) for _ in range(5)]
    return min(took_s for took_s, _ in runs), set(runs[0][1])


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
