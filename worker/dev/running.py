"""The development stack that runs on this machine, as other terminals find it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from worker.settings import Settings, load_settings


def write_running(data_dir: Path, settings: Mapping[str, str]) -> Path:
    """Leave a note of the settings that lead to the stack, readable by its owner alone."""
    data_dir.mkdir(parents=True, exist_ok=True)
    note = data_dir / "dev.json"
    note.unlink(missing_ok=True)
    note.touch(mode=0o600)
    note.write_text(json.dumps({"pid": os.getpid(), "settings": dict(settings)}))
    return note


def settings_of_dev(settings: Settings) -> Settings | None:
    """Point the settings at a running `connectors dev`, where they name no broker of their own."""
    if "rabbitmq_url" in settings.model_fields_set:
        return None
    try:
        note = json.loads((settings.data_dir / "dev.json").read_text())
        os.kill(note["pid"], 0)
        leading_there = note["settings"]
    except (OSError, ValueError, KeyError):
        return None
    return load_settings(**leading_there)
