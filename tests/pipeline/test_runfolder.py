"""A run's folder: what is written is there whole or not at all, and what is read again is what was written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Exported, Parity, sha256_file
from pipeline.errors import StorageError, UsageError
from pipeline.runfolder import PLAN, RunFolder, create, discard_unmeasured, reopen, write_json, write_text

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
FULL = OSError(errno.ENOSPC, "No space left on device")


def fail(*arguments: Any, **more: Any) -> Any:
    raise FULL


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "reports", "pixel", {"models": ["net"]})


# atomic writes


def test_json_is_read_back_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"größe": [1, None, "µs"]})
    assert json.loads(path.read_text("utf-8")) == {"größe": [1, None, "µs"]} and path.read_bytes().endswith(b"}\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["mkstemp", "fdopen", "fsync", "chmod", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old", "utf-8")
    monkeypatch.setattr(tempfile if call == "mkstemp" else os, call, fail)
    with pytest.raises(StorageError, match=r"cannot write .*a\.json: No space left on device; try: free some space"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text("utf-8") == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("text", "error"), [("\udcff", UnicodeEncodeError), ("x", KeyboardInterrupt)])
def test_whatever_ends_a_write_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[BaseException]
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(error):
        write_text(tmp_path / "a.html", text)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write_text(tmp_path / "none" / "a", "x")


def test_a_number_that_json_has_not_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"latency": float("nan")})
    assert list(tmp_path.iterdir()) == []


# create and reopen


def test_a_new_folder_is_named_by_date_device_and_kind(folder: RunFolder) -> None:
    created = folder.plan["created"]
    assert created[:10] + "-" + created[11:19].replace(":", "") + "-pixel-bench" == folder.name and created[-1] == "Z"
    assert folder.artifacts.is_dir() and folder.plan["models"] == ["net"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["artifacts", PLAN]


def test_a_device_with_an_odd_name_stays_inside_reports(tmp_path: Path) -> None:
    folder = create(tmp_path, "../10.0.0.1:5555 é", {})
    assert folder.path.parent == tmp_path and folder.name.endswith("-.._10.0.0.1_5555__-bench")


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    assert len({create(tmp_path, "host", {}).path for _ in range(5)}) == 5


def test_a_reopened_folder_has_the_plan_it_was_made_with(folder: RunFolder) -> None:
    assert reopen(folder.path) == folder


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(StorageError, match="cannot make a run folder in .*; try: --reports DIR"):
        create(tmp_path / "file", "host", {})
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StorageError, match="No space left"):
        create(tmp_path, "host", {})


DAMAGED = ["", "{", "[]", "3", '"x"', "null", "{}", "\udcff", "[" * 100_000]


@pytest.mark.parametrize("plan", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_plan_is_named(folder: RunFolder, plan: str) -> None:
    (folder.path / PLAN).write_bytes(plan.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=r"is no run that could be resumed: no readable plan\.json"):
        reopen(folder.path)


def test_a_folder_without_a_plan_or_of_another_version(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no readable plan"):
        reopen(tmp_path / "none")
    write_json(folder.path / PLAN, {**folder.plan, "schema_version": 2})
    with pytest.raises(UsageError, match="a plan of version 2, this is version 1"):
        reopen(folder.path)


def test_a_plan_that_cannot_be_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"plan\.json: No space left"):
        create(tmp_path, "host", {})
    assert list(tmp_path.iterdir()) == []


def test_only_a_run_without_launches_is_discarded(folder: RunFolder) -> None:
    launch = folder.path / "launch-00.jsonl"
    launch.write_text("", "utf-8")
    discard_unmeasured(folder.path)
    assert folder.path.is_dir()
    launch.unlink()
    discard_unmeasured(folder.path)
    assert not folder.path.exists()


def test_a_device_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="it is no plain file; try: the path of a file"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()


# remember and recall


def remembered(folder: RunFolder, parity: Parity | None = None) -> Exported:
    exported: Exported = FAKE["exported"](folder.artifacts)
    exported = dataclasses.replace(exported, sha256=sha256_file(exported.path), parity=parity)
    folder.remember(exported)
    return exported


@pytest.mark.parametrize("parity", [None, Parity(1e-4, 1e-6, {"china": 1e-6})])
def test_an_export_is_recalled_as_it_was(folder: RunFolder, parity: Parity | None) -> None:
    exported = remembered(folder, parity)
    assert reopen(folder.path).recall("net", "tflite") == exported
    assert folder.recall("net", "onnx") is None and folder.recall("other", "tflite") is None


def test_a_moved_run_recalls_its_own_files(folder: RunFolder, tmp_path: Path) -> None:
    exported = remembered(folder)
    moved = folder.path.rename(tmp_path / "moved")
    again = reopen(moved).recall("net", "tflite")
    assert again == dataclasses.replace(exported, path=moved / "artifacts" / "net.tflite")


def test_a_file_that_changed_or_went_is_not_recalled(folder: RunFolder) -> None:
    exported = remembered(folder)
    exported.path.write_bytes(b"A model")
    assert folder.recall("net", "tflite") is None
    exported.path.unlink()
    assert folder.recall("net", "tflite") is None


@pytest.mark.parametrize("record", [*DAMAGED, '{"parity": 3}'], ids=range(len(DAMAGED) + 1))
def test_a_damaged_record_is_not_recalled(folder: RunFolder, record: str) -> None:
    remembered(folder)
    (folder.artifacts / "net.tflite.json").write_bytes(record.encode("utf-8", "surrogateescape"))
    assert folder.recall("net", "tflite") is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Exported)])
def test_a_record_without_a_field_is_not_recalled(folder: RunFolder, field: str) -> None:
    remembered(folder)
    path = folder.artifacts / "net.tflite.json"
    record = json.loads(path.read_text("utf-8"))
    del record[field]
    write_json(path, record)
    assert folder.recall("net", "tflite") is None
