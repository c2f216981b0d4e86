"""What a launch may bring home: graphs as large as the models that they are of, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.errors import TransferError
from devices.host import HostTransport
from pipeline import collect as collecting
from pipeline.collect import collect, runs_folder


@pytest.mark.parametrize(("models_bytes", "comes"), [(0, False), (3000, False), (4000, True)])
def test_graphs_may_be_as_large_as_their_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_bytes: int, comes: bool
) -> None:
    monkeypatch.setattr(collecting, "MAX_FOLDER_BYTES", 1000)
    run = tmp_path / "run"
    run.mkdir()
    with HostTransport(tmp_path / "device") as device:
        scratch = Path(runs_folder(device, "run")) / "launch-00"
        scratch.mkdir(parents=True)
        (scratch / "results.jsonl").write_bytes(b"")
        (scratch / "a.onnxruntime+kernels.onnx").write_bytes(b"x" * 6000)
        path = run / "launch-00.jsonl"
        if comes:
            collect(device, str(scratch), path, {"a.onnxruntime": "log"}, models_bytes)
            assert path.exists()
        else:
            with pytest.raises(TransferError, match=f"it holds over {1000 + int(1.5 * models_bytes)} bytes"):
                collect(device, str(scratch), path, {"a.onnxruntime": "log"}, models_bytes)
            assert list(run.iterdir()) == []
