"""The development stack that runs on this machine, as other terminals find it."""

import json
import os
from pathlib import Path

from pydantic import SecretStr

from worker.settings import Settings


def write_running(data_dir: Path, *, rabbitmq_url: str, vault_url: str, vault_token: str) -> Path:
    """Leave a note of where the stack listens, readable by its owner alone."""
    data_dir.mkdir(parents=True, exist_ok=True)
    note = data_dir / "dev.json"
    note.unlink(missing_ok=True)
    note.touch(mode=0o600)
    note.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "rabbitmq_url": rabbitmq_url,
                "vault_url": vault_url,
                "vault_token": vault_token,
            }
        )
    )
    return note


def settings_of_dev(settings: Settings) -> Settings | None:
    """Point the settings at a running `connectors dev`, where they name no broker of their own."""
    if "rabbitmq_url" in settings.model_fields_set:
        return None
    try:
        note = json.loads((settings.data_dir / "dev.json").read_text())
        os.kill(note["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return settings.model_copy(
        update={
            "rabbitmq_url": SecretStr(note["rabbitmq_url"]),
            "vault_url": note["vault_url"],
            "vault_auth": "token",
            "vault_token": SecretStr(note["vault_token"]),
        }
    )
