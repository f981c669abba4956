"""The programs of RabbitMQ and Erlang on this machine.

installed (Debian, Homebrew, a release's own sbin on PATH) → Debian's packages, unpacked → NotInstalled
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.dev import debian
from worker.dev.errors import InfrastructureError, NotInstalled
from worker.dev.process import base_environment

_PACKAGE = "rabbitmq-server"
#: Root of the Erlang system, hard-wired in Debian's `bin/erl`.
_DEBIAN_ERLANG = "usr/lib/erlang"

_HOW_TO_INSTALL = (
    "RabbitMQ is not installed. On Debian or Ubuntu: apt-get install rabbitmq-server; on macOS: brew install "
    "rabbitmq; or start it elsewhere (docker compose up) and set CONNECTORS_RABBITMQ_URL"
)


@dataclass(frozen=True, slots=True)
class RabbitMQPrograms:
    """The programs of a private broker."""

    server: Path
    ctl: Path
    epmd: Path
    #: Evaluates Erlang in a running node within milliseconds; None if this Erlang lacks it.
    erl_call: Path | None
    env: dict[str, str]


async def find_programs(cache: Path) -> RabbitMQPrograms:
    """Return the programs, downloaded into the cache if need be.

    Raises:  NotInstalled: with what to install.
    """
    if (installed := installed_programs()) is not None:
        return installed
    if not debian.is_available():
        raise NotInstalled(_HOW_TO_INSTALL)
    return await downloaded_programs(cache)


async def downloaded_programs(cache: Path) -> RabbitMQPrograms:
    """Return the programs from Debian's packages, unpacked in the cache.

    Raises:  NotInstalled: with what to install.
    """
    try:
        tree = await debian.unpacked(_PACKAGE, follow="erlang-", cache=cache, finish=_move_erlang)
    except InfrastructureError as error:
        raise NotInstalled(f"{_HOW_TO_INSTALL}. Getting Debian's packages failed: {error}") from error
    return unpacked_programs(tree)


def installed_programs() -> RabbitMQPrograms | None:
    """Return the RabbitMQ that is installed on this machine."""
    for scripts, erlang in _places():
        env = base_environment([erlang] if erlang else [])
        programs = _programs(scripts, env)
        if programs is not None:
            return programs
    return None


def unpacked_programs(tree: Path) -> RabbitMQPrograms:
    """Return the RabbitMQ in a tree of unpacked Debian packages.

    Raises:  NotInstalled: the tree is not whole.
    """
    env = base_environment([tree / _DEBIAN_ERLANG / "bin"])
    if libraries := debian.library_path(tree):
        env["LD_LIBRARY_PATH"] = libraries
    programs = _programs(tree / "usr/lib/rabbitmq/bin", env)
    if programs is None:
        raise NotInstalled(
            f"the unpacked RabbitMQ in {tree} is not whole: remove that directory and start again"
        )
    return programs


def _places() -> Iterator[tuple[Path, Path | None]]:
    """Yield the directories of RabbitMQ's own scripts, each with its Erlang's if PATH may lack it."""
    # Not /usr/sbin/rabbitmq-server: that wrapper wants root or user rabbitmq.
    yield Path("/usr/lib/rabbitmq/bin"), None
    for prefix in (Path("/opt/homebrew/opt"), Path("/usr/local/opt")):
        yield prefix / "rabbitmq/sbin", prefix / "erlang/bin"
    if found := shutil.which("rabbitmq-server"):
        yield Path(found).resolve().parent, None


def _programs(scripts: Path, env: dict[str, str]) -> RabbitMQPrograms | None:
    server, ctl = scripts / "rabbitmq-server", scripts / "rabbitmqctl"
    # A script of the release lies beside the environment that it reads; Debian's wrapper does not.
    if not all(path.exists() for path in (server, ctl, scripts / "rabbitmq-env")):
        return None
    erl = shutil.which("erl", path=env["PATH"])
    if erl is None:
        return None
    erlang_bin = Path(erl).resolve().parent
    epmd = shutil.which("epmd", path=_path(erlang_bin, *erlang_bin.parent.glob("erts-*/bin"), env["PATH"]))
    if epmd is None:
        return None
    interface = sorted(erlang_bin.parent.glob("lib/erl_interface-*/bin"))
    erl_call = shutil.which("erl_call", path=_path(erlang_bin, *interface, env["PATH"]))
    return RabbitMQPrograms(server, ctl, Path(epmd), Path(erl_call) if erl_call else None, env)


def _path(*parts: Path | str) -> str:
    return os.pathsep.join(map(str, parts))


def _move_erlang(staged: Path, final: Path) -> None:
    """Write the new path of Erlang into its start scripts."""
    hard_wired, moved = f"ROOTDIR=/{_DEBIAN_ERLANG}\n", f'ROOTDIR="{final / _DEBIAN_ERLANG}"\n'
    root = staged / _DEBIAN_ERLANG
    for script in (root / "bin/erl", *root.glob("erts-*/bin/erl")):
        if not script.is_symlink():
            script.write_text(script.read_text().replace(hard_wired, moved))
