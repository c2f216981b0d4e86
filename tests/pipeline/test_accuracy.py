"""Real inputs through the real runner: its answers are torch's; what goes wrong is said and leaves nothing."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.bundle import RuntimeBundle, host_bundle
from devices.errors import DeviceError, DeviceLost
from devices.host import HostTransport
from pipeline.accuracy import device_logits
from pipeline.datasets import digits
from pipeline.deploy import RUNTIME_FORMATS, Deployed, deploy
from pipeline.errors import CheckFailed
from pipeline.evaluate import torch_logits

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
IMAGES = np.zeros((3, 1, 8, 8), np.float32)


@pytest.mark.parametrize("runtime", RUNTIME_FORMATS)
def test_a_runtime_on_the_device_answers_as_torch_does(
    digits_files: dict[str, Any], digits_network: Any, cache_home: Path, tmp_path: Path, runtime: str
) -> None:
    device = HostTransport(tmp_path / "device")
    bundle = host_bundle(device.describe().abi, [runtime], cache_home / "handset")
    case = deploy(digits_files[RUNTIME_FORMATS[runtime]], runtime, device, bundle)
    _, _, images, labels = digits()
    images, folder = images[:50], tmp_path / "run"
    folder.mkdir()
    logits = device_logits(case, images, device, bundle, folder)
    expected = torch_logits(digits_network.module, images)
    assert logits.shape == (50, 10) and logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= 1e-3 * np.abs(expected).max()
    assert logits.argmax(1).tolist() == expected.argmax(1).tolist()
    assert (logits.argmax(1) == labels[:50]).mean() > 0.9
    assert list(folder.iterdir()) == [] and list(Path(device.workdir).glob("infer-*")) == []


class Answering(FAKE["FakeDevice"]):  # type: ignore
    """Answers with these numbers; keeps what it was given to run."""

    def __init__(self, folder: Path, answer: bytes, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.answer = answer
        self.given = b""

    def _run_job(self, path: Path, on_output: Any) -> None:
        _, case = FAKE["read_job"](path.read_text("utf-8"))
        self.given = Path(case["input"]).read_bytes()
        Path(case["output"]).write_bytes(self.answer)
        super()._run_job(path, on_output)


@pytest.fixture
def run_on(tmp_path: Path) -> Any:
    folder = tmp_path / "run"
    folder.mkdir()

    def run(device: Any, runtime: str = "litert", images: Any = IMAGES) -> Any:
        case: Deployed = FAKE["deployed"](tmp_path, "net", runtime)
        bundle: RuntimeBundle = FAKE["bundle"](tmp_path)
        try:
            return device_logits(case, images, device, bundle, folder)
        finally:
            assert list(folder.iterdir()) == []

    return run


@pytest.mark.parametrize(("runtime", "axes"), [("onnxruntime", (0, 1, 2, 3)), ("litert", (0, 2, 3, 1))])
def test_images_go_in_the_layout_of_the_file(run_on: Any, tmp_path: Path, runtime: str, axes: tuple[int, ...]) -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    device = Answering(tmp_path / "device", np.arange(6, dtype="<f4").tobytes())
    logits = run_on(device, runtime, images)
    assert device.given == np.ascontiguousarray(images.transpose(axes)).tobytes()
    assert logits.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("count", [0, 4])
def test_another_number_of_answers_than_inputs_is_an_error(run_on: Any, tmp_path: Path, count: int) -> None:
    device = Answering(tmp_path / "device", b"\0" * 4 * count)
    with pytest.raises(CheckFailed, match=f"net.litert gave {count} numbers for 3 inputs"):
        run_on(device)


def test_half_a_number_is_an_error(run_on: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="gave 3.25 numbers for 3 inputs"):
        run_on(Answering(tmp_path / "device", b"\0" * 13))


def test_a_model_that_fails_on_the_device_is_named(run_on: Any, tmp_path: Path) -> None:
    device = Answering(tmp_path / "device", b"", failures={"net.litert": "killed by signal 11"})
    with pytest.raises(CheckFailed, match="net.litert could not be run on the device: killed by signal 11"):
        run_on(device)


def test_a_runner_that_ends_badly_is_a_device_error(run_on: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="status 2: bad job"):
        run_on(Answering(tmp_path / "device", b"", status=2, stderr=b"bad job"))


def test_results_that_do_not_tell_of_the_case_are_a_device_error(
    run_on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Answering(tmp_path / "device", b"")
    monkeypatch.setattr(device, "_case", lambda launch, case: [])
    with pytest.raises(DeviceError, match="the runner reported nothing of net.litert"):
        run_on(device)


def test_a_lost_link_leaves_no_files_here(run_on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Answering(tmp_path / "device", b"")

    def lost(*arguments: Any, **more: Any) -> Any:
        raise DeviceLost("gone")

    monkeypatch.setattr(device, "run", lost)
    with pytest.raises(DeviceLost, match="gone"):
        run_on(device)
