"""compose.yaml and the Dockerfile, as far as they can be checked without Docker."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from worker.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "worker" / "Dockerfile"
BIN = Path(sys.executable).parent


@pytest.fixture
def services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE.read_text())["services"])


def test_compose_fits_its_schema() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run(
        [str(BIN / "hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", [COMPOSE, DOCKERFILE, *sorted((ROOT / "worker" / "ops").glob("*.sh"))])
def test_every_setting_it_names_exists(path: Path) -> None:
    known = {f"CONNECTORS_{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(r"\bCONNECTORS_[A-Z_]+\b", path.read_text())) <= known


def test_every_service_has_a_health_check_and_loopback_ports(services: dict[str, Any]) -> None:
    assert {"rabbitmq", "openbao", "vault-setup", "worker"} == services.keys()
    for name, service in services.items():
        assert "healthcheck" in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values() if "image" in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)

    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images), images
