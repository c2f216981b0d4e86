"""The canary's reference: taken once, kept, reset where it was clearly wrong, and never a reason to stop."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from devices.reference import RESET_BELOW, Reference, settle_reference


def settle(folder: Path, ns: float, device: str = "host", case: str = "canary; runner; model") -> Reference:
    return settle_reference(folder, device, case, ns)


def test_first_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    assert settle(folder, 1000.0) == Reference(1000.0, "first")
    assert settle(folder, 1500.0) == Reference(1000.0, "kept")
    assert settle(folder, 1000.0) == Reference(1000.0, "kept")
    assert len(list(folder.iterdir())) == 1


def test_reset_by_a_clearly_quieter_run(tmp_path: Path) -> None:
    settle(tmp_path, 1000.0)
    assert settle(tmp_path, 1000.0 * RESET_BELOW) == Reference(1000.0, "kept")
    quieter = 1000.0 * RESET_BELOW - 1
    assert settle(tmp_path, quieter) == Reference(quieter, "reset")
    assert settle(tmp_path, 1000.0) == Reference(quieter, "kept")


def test_devices_and_cases_have_their_own(tmp_path: Path) -> None:
    for ns, device, case in ((1.0, "a", "x"), (2.0, "a", "y"), (3.0, "b", "x"), (4.0, "../a", "x"), (5.0, "a", "")):
        assert settle(tmp_path, ns, device, case).origin == "first"
    assert settle(tmp_path, 9.0, "a", "y").ns == 2.0
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("device", ["../../escape", "a/b", "ü", "x" * 1000, ""])
def test_hostile_names_stay_in_the_folder(device: str, tmp_path: Path) -> None:
    assert settle(tmp_path / "kept", 1.0, device, "x" * 10_000).origin == "first"
    assert settle(tmp_path / "kept", 1.0, device, "x" * 10_000).origin == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("ns", [0.0, -1.0])
def test_no_canary_no_reference(ns: float, tmp_path: Path) -> None:
    assert settle(tmp_path / "none", ns) == Reference(0.0, "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", b"7", b"null", b"{}", b'{"reference_ns": null}', b'{"reference_ns": "1000"}',
        b'{"reference_ns": NaN}', b'{"reference_ns": Infinity}', b'{"reference_ns": 0}', b'{"reference_ns": -5}',
        b'{"reference_ns": 1e300}', b'{"reference_ns": 1' + b"0" * 400 + b"}", b'{"reference_ns": [1]}', b"[" * 100_000,
    ],
    ids=range(17),
)  # fmt: skip
def test_damaged_file_is_taken_anew(content: bytes, tmp_path: Path) -> None:
    settle(tmp_path, 1000.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert settle(tmp_path, 2000.0) == Reference(2000.0, "first")
    assert json.loads(file.read_text())["reference_ns"] == 2000.0


def test_folder_that_cannot_be_written() -> None:
    assert settle(Path("/proc/none"), 1000.0) == Reference(1000.0, "first")


@pytest.mark.parametrize("broken", ["replace", "fdopen"])
def test_a_failed_write_leaves_nothing(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: object, *_: object) -> None:
        if isinstance(handle, int):
            os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    assert settle(tmp_path, 1000.0) == Reference(1000.0, "first")
    assert list(tmp_path.iterdir()) == []
