"""The file of master keys: what is read, what is refused, and that no line of it is ever repeated."""

import base64
from pathlib import Path

import pytest

from worker.credentials.keyring import Keyring, MasterKeyMissing, read_keyring
from worker.credentials.sealing import KEY_BYTES, SealBroken, new_key
from worker.settings import SettingError

PLACE = ("tenant", "acme")


def keyring_file(folder: Path, *ids: str, mode: int = 0o600) -> Path:
    """Write a keyring with new keys."""
    file = folder / "keyring"
    file.write_text("".join(f"{each} {base64.b64encode(new_key()).decode()}\n" for each in ids))
    file.chmod(mode)
    return file


async def test_the_first_key_writes_and_all_of_them_read(tmp_path: Path) -> None:
    file = keyring_file(tmp_path, "k1")
    old = Keyring(file)
    wrapped = await old.wrap(b"k" * KEY_BYTES, *PLACE)
    file.write_text(f"# new\n\nk2 {base64.b64encode(new_key()).decode()}\n" + file.read_text())

    both = Keyring(file)

    assert "k2" == both.writing_key == (await both.wrap(b"k" * KEY_BYTES, *PLACE)).master_key
    assert b"k" * KEY_BYTES == await both.unwrap(wrapped, *PLACE)


async def test_a_key_that_was_added_is_found_without_a_restart(tmp_path: Path) -> None:
    file = keyring_file(tmp_path, "k1")
    running = Keyring(file)
    file.write_text(f"k2 {base64.b64encode(new_key()).decode()}\n" + file.read_text())
    wrapped = await Keyring(file).wrap(b"k" * KEY_BYTES, *PLACE)

    assert b"k" * KEY_BYTES == await running.unwrap(wrapped, *PLACE)


async def test_a_wrapped_key_opens_at_its_own_place_alone(tmp_path: Path) -> None:
    keyring = Keyring(keyring_file(tmp_path, "k1"))
    wrapped = await keyring.wrap(new_key(), *PLACE)

    with pytest.raises(SealBroken):
        await keyring.unwrap(wrapped, "tenant", "other")
    with pytest.raises(MasterKeyMissing, match="k9"):
        await keyring.unwrap(wrapped._replace(master_key="k9"), *PLACE)


@pytest.mark.parametrize(
    ("content", "issue"),
    [
        ("", "has no key"),
        ("k1\n", "no key in line 1"),
        ("k1 c2hvcnQ=\n", "no key in line 1"),
        (f"k1 {base64.b64encode(bytes(32)).decode()}\n", "no key in line 1"),
        (f"K1 {base64.b64encode(b'a' * 32).decode()}\n", "no key in line 1"),
        (f"k1 {base64.b64encode(b'a' * 32).decode()} more\n", "no key in line 1"),
        (f"k1 {base64.b64encode(b'a' * 32).decode()}\n" * 2, "twice, in line 2"),
        ("k1 {0}\nk2 {0}\n".format(base64.b64encode(b"a" * 32).decode()), "under two ids, in line 2"),
        ("x" * 70_000, "too large"),
    ],
)
def test_what_is_no_keyring_is_refused_by_its_line(tmp_path: Path, content: str, issue: str) -> None:
    file = tmp_path / "keyring"
    file.write_text(content)
    file.chmod(0o600)

    with pytest.raises(SettingError, match=issue) as refused:
        read_keyring(file)

    assert base64.b64encode(b"a" * 32).decode() not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_keyring_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingError, match="chmod 600"):
        read_keyring(keyring_file(tmp_path, "k1", mode=mode))


def test_a_keyring_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="No such file"):
        read_keyring(tmp_path / "none")
    with pytest.raises(SettingError, match="is no file"):
        read_keyring(tmp_path)
