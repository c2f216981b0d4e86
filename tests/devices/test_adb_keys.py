"""The key by which a phone knows this computer: where adb keeps it, for its owner alone, whole or not at all."""

from __future__ import annotations

import base64
import stat
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from devices.adb.keys import Keys, Signer, ensure_key, key_path, public_key
from devices.errors import DeviceError


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_key(tmp_path_factory.mktemp("home") / ".android" / "adbkey")


def test_it_lies_where_adb_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert key_path() == Path("/home/me/.android/adbkey")


def test_a_new_key_is_its_owners_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) & 0o077 == 0
    assert sorted(path.name for path in key.parent.iterdir()) == ["adbkey", "adbkey.pub"]
    assert b"BEGIN PRIVATE KEY" in key.read_bytes()


def test_an_old_key_is_kept(key: Path) -> None:
    before = key.read_bytes(), key.stat().st_mtime_ns
    assert ensure_key(key) == key
    assert (key.read_bytes(), key.stat().st_mtime_ns) == before


def test_the_public_key_is_androids_form_and_one_line(key: Path) -> None:
    text = key.with_name("adbkey.pub").read_text()
    assert text == public_key(key) + "\n" and text.count("\n") == 1
    words, n0inv, modulus, rr, exponent = struct.unpack("<II256s256sI", base64.b64decode(text.split()[0]))
    n = int.from_bytes(modulus, "little")
    assert (words, exponent) == (64, 65537)
    assert n0inv * n % 2**32 == 2**32 - 1 and int.from_bytes(rr, "little") == pow(2, 4096, n)


def test_a_signature_is_what_adb_signs(key: Path, tmp_path: Path) -> None:
    """The token stands for a SHA-1 digest: RSA by hand gives PKCS#1's padding around it."""
    token = bytes(range(20))
    signer = Signer(key)
    blob = base64.b64decode(signer.GetPublicKey().split()[0])
    n = int.from_bytes(blob[8:264], "little")
    opened = pow(int.from_bytes(signer.Sign(token), "big"), 65537, n).to_bytes(256, "big")
    sha1 = bytes.fromhex("3021300906052b0e03021a05000414")
    assert opened == b"\0\1" + b"\xff" * (256 - 3 - len(sha1) - 20) + b"\0" + sha1 + token
    with pytest.raises(ValueError):
        signer.Sign(b"short")


def test_processes_that_make_it_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "adbkey"
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(ensure_key(path).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {path.read_bytes()} and len(seen) == 4
    assert path.with_name("adbkey.pub").read_text() == public_key(path) + "\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_no_key_is_read_or_made_unless_a_phone_asks(tmp_path: Path) -> None:
    keys = Keys(tmp_path / ".android" / "adbkey")
    assert list(tmp_path.iterdir()) == []
    assert len(keys) == 1 and isinstance(keys[0], Signer) and list(keys) == [keys[0]]
    assert (tmp_path / ".android" / "adbkey").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"cannot make the key .*adbkey.*try: HOME="):
        ensure_key(tmp_path / "file" / "adbkey")


def test_what_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "adbkey"
    for content in (b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        path.write_bytes(content)
        with pytest.raises(DeviceError, match="no private key that can be read.*move it away"):
            Signer(path)


def test_a_key_that_phones_do_not_take(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path = tmp_path / "adbkey"
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem)
    with pytest.raises(DeviceError, match="no RSA key of 2048 bits"):
        Signer(path)


def test_adb_itself_reads_it(key: Path) -> None:
    adbutils = pytest.importorskip("adbutils")
    said = subprocess.run([adbutils.adb_path(), "pubkey", str(key)], capture_output=True, text=True, check=False)
    if said.returncode != 0 and "unknown command" in said.stderr:
        pytest.skip("this adb has no pubkey")
    assert said.stdout.split()[0] == public_key(key).split()[0]
