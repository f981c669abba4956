"""compose.yaml and the image, as far as they can be checked without Docker."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from worker.broker.rabbitmq_definitions import FILE, compose_text
from worker.ops import make_secrets
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "worker" / "Dockerfile"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE.read_text()))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return dict(compose["services"])


def test_compose_fits_its_schema() -> None:
    _passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_the_dockerfile_passes_hadolint() -> None:
    _passes("hadolint", str(DOCKERFILE))


@pytest.mark.parametrize("path", [COMPOSE, DOCKERFILE, ROOT / "worker" / "ops" / "make_secrets.py"])
def test_every_setting_it_names_exists(path: Path) -> None:
    known = {f"CONNECTORS_{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(r"\bCONNECTORS_[A-Z_]+\b", path.read_text())) <= known


def test_every_service_has_a_health_check_and_loopback_ports(services: dict[str, Any]) -> None:
    assert {"rabbitmq", "openbao", "worker"} <= services.keys()
    for name, service in services.items():
        assert "healthcheck" in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_the_worker_starts_once_the_others_are_healthy(services: dict[str, Any]) -> None:
    assert {name: {"condition": "service_healthy"} for name in services.keys() - {"worker"}} == services[
        "worker"
    ]["depends_on"]


def test_the_worker_is_locked_in(services: dict[str, Any]) -> None:
    worker = services["worker"]

    assert worker["read_only"]
    assert ["ALL"] == worker["cap_drop"]
    assert "no-new-privileges:true" in worker["security_opt"]
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE.read_text(), re.MULTILINE)


def test_the_worker_has_time_to_drain(services: dict[str, Any]) -> None:
    worker = services["worker"]

    assert int(worker["stop_grace_period"].removesuffix("s")) > float(
        worker["environment"]["CONNECTORS_DRAIN_SECONDS"]
    )


def test_no_secret_is_in_an_environment(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search(r"PASS|TOKEN|SECRET|KEY", variable) and not variable.endswith("_FILE")
            assert not secret, f"{name}: {variable}"
            assert not re.search(r"://[^/]*:[^/]*@", value), f"{name}: {variable}"


def test_make_secrets_writes_every_secret_that_is_mounted(compose: dict[str, Any]) -> None:
    mounted = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    folders = {str(Path(secret["file"]).parent) for secret in compose["secrets"].values()}

    assert mounted <= make_secrets.files().keys()
    assert {make_secrets.FOLDER.name} == folders
    assert f"{make_secrets.FOLDER.name}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_config_file_is_there(compose: dict[str, Any]) -> None:
    assert [] == [
        config["file"] for config in compose["configs"].values() if not (ROOT / config["file"]).is_file()
    ]


def test_the_broker_is_given_the_topology_that_the_worker_wants() -> None:
    assert compose_text() == FILE.read_text(), (
        f"{FILE.name} is stale: run `python -m worker.broker.rabbitmq_definitions`"
    )


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values() if "image" in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)

    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images), images


def test_the_image_installs_what_is_locked() -> None:
    installs = re.findall(r"pip install (.*?)(?: \\)?$", DOCKERFILE.read_text(), re.MULTILINE)

    assert installs
    assert all("--require-hashes" in install or "--no-index" in install for install in installs), installs


def _passes(program: str, *arguments: str) -> None:
    done = subprocess.run([str(BIN / program), *arguments], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
