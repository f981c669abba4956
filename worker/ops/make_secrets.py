"""Create the passwords and keys of compose.yaml, once, with nothing but Python: `make secrets`.

Each is created here and written to `secrets/`, which git ignores. The directory is its owner's alone; the
files in it can be read by all, since compose mounts them as they are and each container has a user of
its own.
"""

import base64
import hashlib
import json
import secrets
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "secrets"

#: Broker users: configure, write, read, and tags. A worker reads job queues and writes to our exchanges, not
#: to the default one: the broker blocks what a forged reply_to could reach. It declares nothing but the mark
#: of its ledger, with a queue of its own that holds it: workers with another ledger are found out by it.
#: A publisher sends jobs, and reads replies from a queue of its own.
USERS: Final = {
    "worker": (
        r"^(connectors\.ledger|amq\.gen-.*)$",
        r"^(connectors\.(jobs|dead|replies|retry\.[0-9]+[smh]|ledger(\..+)?)|amq\.gen-.*)$",
        r"^connectors\.(jobs\..+|unrouted|ledger)$",
        [],
    ),
    "agent": (
        r"^amq\.gen-.*$",
        r"^(connectors\.jobs|amq\.gen-.*)$",
        r"^(connectors\.replies|amq\.gen-.*)$",
        [],
    ),
    "operator": (".*", ".*", ".*", ["administrator"]),
}


def main() -> int:
    """Write the secrets unless they exist, because volumes depend on them."""
    if FOLDER.exists():
        sys.stdout.write(f"{FOLDER.name}/ exists already; compose.yaml's volumes depend on it\n")
        return 0
    unfinished = FOLDER.with_name(f"{FOLDER.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    for name, text in files().items():
        path = unfinished / name
        path.write_text(text)
        path.chmod(0o644)
    unfinished.rename(FOLDER)  # all or nothing, so that an interrupted run is begun again
    sys.stdout.write(f"wrote {FOLDER.name}/: {', '.join(sorted(files()))}\n")
    return 0


def files() -> dict[str, str]:
    """Return new random secrets, each file's text by its name."""
    passwords = {user: secrets.token_hex(24) for user in USERS}
    replies = "CONNECTORS_REPLY_EXCHANGE=connectors.replies\n"

    def url(user: str, host: str) -> str:
        return f"CONNECTORS_RABBITMQ_URL=amqp://{user}:{passwords[user]}@{host}:5672/\n"

    return {
        "rabbitmq_users.json": json.dumps(_access(passwords), indent=1) + "\n",
        "openbao_seal_key": secrets.token_hex(32),
        "worker_secret_id": secrets.token_hex(32),
        "operator_secret_id": secrets.token_hex(32),
        # The worker's `.env`; the other two are for this machine: `set -a; . secrets/agent.env`.
        "worker.env": url("worker", "rabbitmq"),
        "agent.env": url("agent", "127.0.0.1") + replies,
        "operator.env": url("operator", "127.0.0.1")
        + replies
        + "CONNECTORS_VAULT_URL=http://127.0.0.1:8200\n"
        + "CONNECTORS_VAULT_AUTH=approle\n"
        + "CONNECTORS_VAULT_ROLE_ID=connectors-operator\n"
        + f"CONNECTORS_VAULT_SECRET_ID_FILE={shlex.quote(str(FOLDER / 'operator_secret_id'))}\n",
    }


def _access(passwords: dict[str, str]) -> dict[str, Any]:
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": user,
                "password_hash": _password_hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": USERS[user][3],
            }
            for user, password in passwords.items()
        ],
        "permissions": [
            {"user": user, "vhost": "/", "configure": configure, "write": write, "read": read}
            for user, (configure, write, read, _tags) in USERS.items()
        ],
    }


def _password_hash(password: str) -> str:
    """Return a password's hash as RabbitMQ stores it: four bytes of salt before their digest."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


if __name__ == "__main__":
    sys.exit(main())
