"""The RSA key that phones know this computer by: $HOME/.android/adbkey, the same that adb uses and makes."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from devices.errors import DeviceError

RSA_BITS = 2048


def key_path() -> Path:
    """Where adb keeps its private key."""
    return Path(os.environ.get("HOME") or Path.home()) / ".android" / "adbkey"


def ensure_key(path: Path) -> Path:
    """`path`, made with mode 0600 (its folder 0700) and a public key beside it where there is none.

    Raises: DeviceError: it cannot be made.
    """
    if path.exists():
        return path
    from adb_shell.auth.keygen import keygen

    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    public, fresh_public = path.with_name(path.name + ".pub"), fresh.with_name(fresh.name + ".pub")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # before there is a secret
        keygen(str(fresh))
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(fresh, path)
            fresh_public.write_text(public_key(path) + "\n", "ascii")  # the library leaves the newline out
            fresh_public.replace(public)
    except OSError as error:
        raise DeviceError(
            f"cannot make the key {path}: {error.strerror}", try_="HOME=<a folder of yours>, or run an adb server"
        ) from error
    finally:
        for left in (fresh, fresh_public):
            with contextlib.suppress(OSError):
                left.unlink()
    return path


def public_key(path: Path) -> str:
    """The line that a phone stores: Android's form of the key in base64, and a name. Without a newline."""
    from adb_shell.auth.keygen import encode_pubkey, get_user_info

    return base64.b64encode(encode_pubkey(str(path))).decode() + str(get_user_info())


class Signer:
    """What the library asks of a key. Args: path: the private key, in PEM. Raises: DeviceError: it is none."""

    def __init__(self, path: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise DeviceError(f"{path} is no private key that can be read: {error}", try_="move it away") from error
        if not isinstance(key, RSAPrivateKey) or key.key_size != RSA_BITS:
            raise DeviceError(
                f"{path} is no RSA key of {RSA_BITS} bits, which is what phones take", try_="move it away"
            )
        self._key, self._path = key, path

    def Sign(self, token: bytes) -> bytes:
        """The token, which stands for a SHA-1 digest, signed."""
        from cryptography.hazmat.primitives.asymmetric import padding, utils
        from cryptography.hazmat.primitives.hashes import SHA1

        return self._key.sign(bytes(token), padding.PKCS1v15(), utils.Prehashed(SHA1()))

    def GetPublicKey(self) -> str:
        return public_key(self._path)


class Keys:
    """The list of keys that the library wants; read, and made where there are none, only if the phone asks for one."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or key_path()
        self._signers: list[Signer] = []

    def _load(self) -> list[Signer]:
        self._signers = self._signers or [Signer(ensure_key(self._path))]
        return self._signers

    def __len__(self) -> int:
        return len(self._load())

    def __iter__(self) -> Iterator[Signer]:
        return iter(self._load())

    def __getitem__(self, index: int) -> Signer:
        return self._load()[index]
