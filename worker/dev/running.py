"""The file by which commands in other terminals find a running `connectors dev`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from worker.settings import Settings, load_settings


def write_running(data_dir: Path, settings: Mapping[str, str]) -> Path:
    """Write the settings that lead to the stack, readable by its owner alone; return the file."""
    data_dir.mkdir(parents=True, exist_ok=True)
    file = data_dir / "dev.json"
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps({"pid": os.getpid(), "settings": dict(settings)}))
    return file


def settings_of_dev(settings: Settings) -> Settings | None:
    """Return settings for a running `connectors dev`; None if there is none, or they name a broker."""
    if "rabbitmq_url" in settings.model_fields_set:
        return None
    try:
        stack = json.loads((settings.data_dir / "dev.json").read_text())
        os.kill(stack["pid"], 0)
        there = stack["settings"]
    except (OSError, ValueError, KeyError):
        return None
    return load_settings(**there)
