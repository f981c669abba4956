"""Debian's packages, downloaded and unpacked without root.

    closure(package) → apt-get download → dpkg-deb -x → one directory, renamed into place

The directory is kept: the second start finds it. Several that start at once wait for the first.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from worker.dev.errors import CommandFailed, InfrastructureError
from worker.dev.process import base_environment, run

#: Seconds for 34 MB of packages on a slow line.
DOWNLOAD_TIMEOUT_S = 600.0
UPDATE_TIMEOUT_S = 180.0
LOCAL_TIMEOUT_S = 60.0

_TOOLS = ("apt-get", "apt-cache", "dpkg-deb", "dpkg-query")


def is_available() -> bool:
    """Return whether this is a system with Debian's package tools."""
    return all(shutil.which(tool) for tool in _TOOLS)


async def unpacked(
    package: str,
    *,
    follow: str,
    cache: Path,
    finish: Callable[[Path, Path], None] = lambda staged, final: None,
) -> Path:
    """Return the directory with the package and its dependencies unpacked, downloaded if need be.

    Args:    follow: pattern of the dependencies to unpack too; libraries that the system lacks always are.
             cache: where it is kept, in a directory of its own for each package and release.
             finish: called with the unpacked tree and the place it is about to be renamed to.
    Raises:  InfrastructureError: it cannot be downloaded or unpacked.
    """
    final = cache / "packages" / f"{package}-{await _release()}"
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    async with _locked(final.parent / f".{final.name}.lock"):
        if final.is_dir():  # unpacked by the process that held the lock
            return final
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            tree = staging / "tree"
            tree.mkdir(mode=0o755)
            for archive in await _downloaded(package, follow, staging):
                await _run("dpkg-deb", "-x", str(archive), str(tree), timeout_s=LOCAL_TIMEOUT_S)
            finish(tree, final)
            tree.rename(final)
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return final


def library_path(tree: Path) -> str:
    """Return the search path for the libraries among the unpacked packages."""
    triplets = [path for base in ("usr/lib", "lib") for path in sorted((tree / base).glob("*-linux-*"))]
    return os.pathsep.join(map(str, triplets))


async def _downloaded(package: str, follow: str, staging: Path) -> Sequence[Path]:
    archives = staging / "archives"
    archives.mkdir()
    try:
        await _download(package, follow, archives, options=())
    except InfrastructureError:
        # No package lists here (a fresh container), or they are older than the archive: lists of our own.
        options = _private_lists(staging)
        update_failure = ""
        try:
            await _run("apt-get", *options, "update", timeout_s=UPDATE_TIMEOUT_S)
        except CommandFailed as error:
            # One source of several may be down, and not the one that matters: the download decides.
            update_failure = f"; {error}"
        try:
            await _download(package, follow, archives, options=options)
        except CommandFailed as error:
            raise InfrastructureError(f"{package} cannot be downloaded: {error}{update_failure}") from error
    return sorted(archives.glob("*.deb"))


async def _download(package: str, follow: str, archives: Path, *, options: Sequence[str]) -> None:
    names = await _closure(package, follow, options)
    # Root's downloads are done by user _apt, who cannot write here, unless told otherwise.
    as_is = ("-o", "APT::Sandbox::User=root")
    await _run(
        "apt-get", *options, *as_is, "--quiet", "download", *names, timeout_s=DOWNLOAD_TIMEOUT_S, cwd=archives
    )


async def _closure(package: str, follow: str, options: Sequence[str]) -> Sequence[str]:
    """Return the package and its dependencies that match `follow` or are libraries the system lacks."""
    hard_only = [
        f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    ]
    listing = await _run(
        "apt-cache", *options, "depends", "--recurse", *hard_only, package, timeout_s=LOCAL_TIMEOUT_S
    )
    needs = _parse_depends(listing)
    if package not in needs:
        raise InfrastructureError(f"the package sources of this machine have no {package}")
    installed = await _installed()
    chosen = [package]
    for name in chosen:  # grows while it is walked
        for need in needs.get(name, ()):
            wanted = re.match(follow, need) or (need.startswith("lib") and need not in installed)
            if wanted and need not in chosen:
                chosen.append(need)
    return chosen


def _parse_depends(listing: str) -> dict[str, list[str]]:
    """Parse `apt-cache depends`: a name at the margin, its dependencies indented; <virtual> ones are left out."""
    needs: dict[str, list[str]] = {}
    current: list[str] = []
    for line in listing.splitlines():
        if not line.startswith(" "):
            current = needs.setdefault(line.strip(), [])
        elif match := re.fullmatch(r"\s+\|?(?:Pre)?Depends: ([^<\s:]+)(?::\w+)?", line):
            current.append(match[1])
    return needs


async def _installed() -> frozenset[str]:
    listing = await _run(
        "dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", timeout_s=LOCAL_TIMEOUT_S
    )
    rows = (line.split() for line in listing.splitlines())
    return frozenset(name for name, status in rows if status == "installed")


def _private_lists(staging: Path) -> Sequence[str]:
    """Return options that keep apt's lists and cache in our own directory, with the system's sources and keys."""
    state, cache = staging / "state", staging / "cache"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::Status": "/var/lib/dpkg/status",
        "Dir::Cache": cache,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


async def _release() -> str:
    """Return the release and architecture: programs of another one would not run after an upgrade."""
    with contextlib.suppress(OSError):
        facts = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
        return f"{facts.get('ID', 'debian')}{facts.get('VERSION_ID', '')}-{os.uname().machine}"
    return os.uname().machine


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes; the kernel releases it however they end."""
    deadline_s = time.monotonic() + DOWNLOAD_TIMEOUT_S
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise InfrastructureError(
                        f"another process has held {path} for {DOWNLOAD_TIMEOUT_S:g} s"
                    ) from None
            await asyncio.sleep(0.1)
        yield


async def _run(*command: str, timeout_s: float, cwd: Path | None = None) -> str:
    proxies: Iterable[str] = (name for name in os.environ if name.lower().endswith("_proxy"))
    env = base_environment() | {name: os.environ[name] for name in proxies}
    return await run(command, env=env, timeout_s=timeout_s, cwd=cwd)
