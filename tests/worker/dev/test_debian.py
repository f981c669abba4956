"""Debian's packages without root, with the package tools played by scripts."""

import asyncio
import os
from pathlib import Path

import pytest

from worker.dev import debian
from worker.dev.errors import InfrastructureError

pytestmark = pytest.mark.integration

#: The tools note what they are called with. The package needs one that is followed, a library that is
#: installed, one that is not, a virtual one, and one that is neither followed nor a library.
TOOLS = {
    "apt-cache": """
cat <<END
broker
  Depends: runtime-base
  Depends: adduser
runtime-base
 |Depends: libold1
  PreDepends: libnew2
  Depends: <virtual>
libold1
libnew2
  Depends: libnewer3
END
""",
    "apt-get": """
case " $* " in
*" update "*) test "$FAIL_UPDATE" && { echo "no network" >&2; exit 100; }; touch "$HERE/updated" ;;
*)  test "$FAIL_DOWNLOAD" && { echo "404 Not Found" >&2; exit 100; }
    test "$STALE" && test ! -e "$HERE/updated" && { echo "404 Not Found" >&2; exit 100; }
    sleep 0.2; echo x > broker.deb ;;
esac
""",
    "dpkg-deb": """
test "$FAIL_UNPACK" && { echo "broken archive" >&2; exit 2; }
mkdir -p "$3/usr/lib/x86_64-linux-gnu"; cp "$2" "$3/usr/broker"
""",
    "dpkg-query": "echo libold1 installed; echo libnew2 config-files",
}


class Machine:
    """A machine with those tools and nothing else of Debian's."""

    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        self._directory = directory

    def install(self, **flags: str) -> str:
        tools = self._directory / "tools"
        tools.mkdir()
        settings = "".join(f"{name}={value}\n" for name, value in flags.items())
        for name, script in TOOLS.items():
            path = tools / name
            head = f'#!/bin/sh\nHERE={self._directory}\n{settings}echo "{name} $*" >> "$HERE/calls"\n'
            path.write_text(head + script.lstrip())
            path.chmod(0o755)
        return f"{tools}{os.pathsep}{os.environ['PATH']}"

    @property
    def calls(self) -> list[str]:
        return (self._directory / "calls").read_text().splitlines()

    async def unpack(self) -> Path:
        return await debian.unpacked("broker", follow="runtime-", cache=self.cache)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_the_package_is_unpacked_with_what_it_needs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.install())

    tree = await machine.unpack()

    assert "x\n" == (tree / "usr/broker").read_text()
    download = next(call for call in machine.calls if " download " in call)
    assert "broker runtime-base libnew2 libnewer3" == download.partition(" download ")[2]
    assert str(tree / "usr/lib/x86_64-linux-gnu") == debian.library_path(tree)


async def test_a_second_start_downloads_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", machine.install())
    first = await machine.unpack()
    calls = len(machine.calls)

    assert first == await machine.unpack()
    assert calls == len(machine.calls)


async def test_several_first_starts_share_one_download(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.install())

    trees = await asyncio.gather(*(machine.unpack() for _ in range(5)))

    assert 1 == len(set(trees))
    assert 1 == sum(" download " in call for call in machine.calls)


async def test_lists_that_are_too_old_are_fetched_anew_in_a_directory_of_ours(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.install(STALE="1"))

    tree = await machine.unpack()

    assert (tree / "usr/broker").exists()
    update = next(call for call in machine.calls if call.endswith(" update"))
    assert f"Dir::State::Lists={machine.cache}" in update
    assert f"Dir::Cache={machine.cache}" in update


async def test_one_source_that_is_down_does_not_stop_the_download(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.install(STALE="1", FAIL_UPDATE="1")
    monkeypatch.setenv("PATH", path)
    (machine.cache.parent / "updated").touch()

    assert (await machine.unpack()).is_dir()


@pytest.mark.parametrize(
    ("flag", "said"),
    [("FAIL_DOWNLOAD", "broker cannot be downloaded.*404 Not Found"), ("FAIL_UNPACK", "broken archive")],
)
async def test_a_failure_is_reported_and_leaves_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, flag: str, said: str
) -> None:
    monkeypatch.setenv("PATH", machine.install(**{flag: "1"}))

    with pytest.raises(InfrastructureError, match=f"(?s){said}"):
        await machine.unpack()

    left = [path.name for path in (machine.cache / "packages").iterdir()]
    assert all(name.endswith(".lock") for name in left), left


async def test_a_package_that_no_source_has_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.install())

    with pytest.raises(InfrastructureError, match="package sources of this machine have no cellar"):
        await debian.unpacked("cellar", follow="runtime-", cache=machine.cache)
