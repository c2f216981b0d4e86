"""The committed tables: readable, named as they say of themselves, listed with the command that made them, judged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import latency_luts

FOLDER = Path(latency_luts.__file__).parent / "tables"
TABLES = sorted(FOLDER.glob("*/*.parquet"))


def test_there_are_some_of_both_runtimes() -> None:
    assert {path.name.partition("-")[0] for path in TABLES} >= {"litert", "onnxruntime"}


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
class TestTable:
    def test_it_is_what_its_name_says_and_no_simulation(self, path: Path) -> None:
        table = latency_luts.load(path)
        dtypes = {entry.key.dtype for entry in table}
        assert path.stem == f"{table.context.runtime}-{dtypes.pop()}-t{table.context.threads}" and not dtypes
        assert not table.context.simulated and len(table) > 100 and table.warmth

    def test_the_list_has_it_with_its_command_and_its_number_of_kernels(self, path: Path) -> None:
        lines = (FOLDER / "README.md").read_text("utf-8").splitlines()
        (row,) = [line for line in lines if f"{path.parent.name}/{path.name}" in line]
        table = latency_luts.load(path)
        assert f"handset lut build --device {table.context.device} --runtime {table.context.runtime} --for" in row
        assert f"the {len(table)} kernels" in row

    def test_a_validation_beside_it_is_of_this_very_file(self, path: Path) -> None:
        beside = path.with_suffix(".validation.json")
        if path.parent.name == "host-epyc":  # made before validations were kept
            assert not beside.exists()
            return
        found = json.loads(beside.read_text("utf-8"))
        assert found["kind"] == "validation" and found["lut"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert found["lut"]["path"] == path.relative_to(FOLDER.parents[1]).as_posix()
        assert found["counts"]["judged"] >= 8
