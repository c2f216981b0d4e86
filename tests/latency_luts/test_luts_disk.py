"""Saving a table on a disk that fails: one clear error, and what was there stays whole."""

from __future__ import annotations

import errno
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latency_luts import LatencyTable, TableStorageError, files, load, save

MADE = runpy.run_path(str(Path(__file__).with_name("test_luts_store.py")))
TABLE: LatencyTable = MADE["TABLE"]


def _replace_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "replace", fail)


def _fsync_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)


def _write_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "open", lambda path, mode: Full(path, mode), raising=False)


def _open_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files, "open", fail, raising=False)


@pytest.mark.parametrize("fault", [_replace_fails, _fsync_fails, _write_fails_half_way, _open_fails])
def test_a_failed_save_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    path = tmp_path / "table.parquet"
    save(TABLE, path)
    with monkeypatch.context() as patch:
        fault(patch)
        with pytest.raises(TableStorageError, match="No space left|Input/output|Read-only") as caught:
            save(LatencyTable(TABLE.context, ()), path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert load(path) == TABLE
    assert [each.name for each in tmp_path.iterdir()] == ["table.parquet"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(TABLE, tmp_path / "table.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_system_on_file_sizes_is_one_clear_error(tmp_path: Path) -> None:
    """A real write that fails in the middle, without a patch."""
    code = (
        "import resource, sys, latency_luts as l, pyarrow.parquet\n"
        "table = l.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: l.save(table, sys.argv[2])\n"
        "except l.TableStorageError as error: print(error)\n"
    )
    old = Path(__file__).parent / "data" / "table_v1.parquet"
    root = Path(files.__file__).parents[1]
    command = [sys.executable, "-c", code, str(old), str(tmp_path / "table.parquet")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["absent/table.parquet", "folder", "nul\0.parquet", "x" * 256])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TableStorageError, match="saving a table of"):
        save(TABLE, tmp_path / place)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes into read-only folders")
def test_a_read_only_folder_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TableStorageError, match="Permission denied"):
        save(TABLE, tmp_path / "table.parquet")
