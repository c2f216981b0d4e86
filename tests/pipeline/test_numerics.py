"""A device's answers to real inputs against torch's: with real runtimes, and with a device that answers as it is told."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from devices.bundle import host_bundle
from devices.errors import DeviceError, DeviceLost
from devices.host import HostTransport
from devices.install import Installed, install
from pipeline.artifact import Network
from pipeline.deploy import Deployed, case_of, deploy, targets_of
from pipeline.errors import StorageError
from pipeline.numerics import Agreement, accuracy_row, as_document, check_on_device

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
RUNTIMES = ("onnxruntime", "litert")


# ---- the real runtimes of this machine


@pytest.fixture
def host(tmp_path: Path, cache_home: Path) -> tuple[HostTransport, Installed]:
    device = HostTransport(tmp_path / "device")
    return device, install(host_bundle(device.describe().abi, list(RUNTIMES), cache_home / "handset"), device)


def real_cases(files: Mapping[str, Any], host: tuple[HostTransport, Installed]) -> list[Deployed]:
    device, installed = host
    cases = [
        case_of(files[target.format], target, device, name_bundle=False)
        for target in targets_of([installed])
        if target.format in files
    ]
    deploy(cases, device)
    return cases


def check(
    cases: list[Deployed], networks: list[Network], host: tuple[HostTransport, Installed], folder: Path
) -> list[Agreement]:
    folder.mkdir()
    found = check_on_device(cases, {one.name: one for one in networks}, host[0], {"host": host[1]}, folder)
    assert list(found) == [case.id for case in cases]
    assert list(folder.iterdir()) == [] and list(Path(host[0].workdir).glob("check-*")) == []
    return list(found.values())


def test_trained_digits_agree_with_torch_and_know_their_accuracy(
    digits_files: Any, digits_network: Network, host: Any, tmp_path: Path
) -> None:
    cases = real_cases(digits_files, host)
    found = check(cases, [digits_network], host, tmp_path / "run")
    for one in found:
        assert one.agrees and one.complaint == "" and one.failed is None
        assert (one.reference, one.inputs, one.input_names) == ("torch", 360, ("digits test 0-359",))
        assert one.relative_error < 1e-5 and one.max_abs_error < 1e-3 and one.cosine > 0.999999
        assert one.top1_agreement == 1.0
    row = accuracy_row(found, cases)
    assert row is not None and row["data"] == "digits, 360 test images" and row["metric"] == "top1"
    assert 0.97 < row["torch"] == row["onnxruntime"] == row["litert"]


def test_photographs_agree_in_both_layouts(small_files: Any, small_network: Any, host: Any, tmp_path: Path) -> None:
    for one in check(real_cases(small_files, host), [small_network(0)], host, tmp_path / "run"):
        assert one.agrees and one.relative_error < 1e-5
        assert one.input_names == ("china", "flower", "seed 0", "seed 1") and one.inputs == 4
        assert one.accuracy is None


def test_other_weights_disagree(small_files: Any, small_network: Any, host: Any, tmp_path: Path) -> None:
    """The files are of seed 0, the network that should be on the device has seed 1."""
    cases = real_cases(small_files, host)
    for one in check(cases, [small_network(1)], host, tmp_path / "run"):
        assert not one.agrees and one.relative_error > 0.01
        assert one.complaint.startswith(f"{one.case} disagrees with torch on this device: error ")
        assert "of the largest output (bound 0.001), top-1 agrees for " in one.complaint
        assert one.complaint.endswith(" of 4 inputs; try: --allow-mismatch to time it anyway")


def test_a_file_is_compared_with_this_machines_runtime(small_files: Any, host: Any, tmp_path: Path) -> None:
    cases = real_cases(small_files, host)
    networks = [
        Network("small", form, small_files[form].input_shape, path=small_files[form].path)
        for form in ("onnx", "tflite")
    ]
    for case, network in zip(cases, networks, strict=True):
        (one,) = check([case], [network], host, tmp_path / case.runtime)
        assert one.agrees and one.relative_error < 1e-6
        assert one.reference == f"{case.runtime} on this machine"


def test_a_model_that_does_not_load_costs_no_other(
    small_files: Any, small_network: Any, host: Any, tmp_path: Path
) -> None:
    onnx, litert = real_cases(small_files, host)
    Path(litert.remote_path).write_bytes(b"no model")
    good, bad = check([onnx, litert], [small_network(0)], host, tmp_path / "run")
    assert good.agrees
    assert not bad.agrees and bad.failed
    assert bad.complaint.startswith("small.litert could not be run on the device: ")


# ---- a device that answers as it is told


class Linear(nn.Module):
    """Ten classes for 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.arange(640, dtype=torch.float32).reshape(64, 10).sin()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight


NET = Network("net", "python", (1, 1, 8, 8), module=Linear().eval())
FLAT = Network("flat", "python", (1, 64), module=Linear().eval())


class Answering(FAKE["FakeDevice"]):  # type: ignore
    """Computes the network as torch does and lets `change` alter the answers, (4, 10)."""

    def __init__(self, folder: Path, change: Any = lambda answers: answers, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.change = change
        self.given: dict[str, bytes] = {}
        self.outputs: Any = None

    def _case(self, launch: int, case: Mapping[str, str]) -> list[dict[str, Any]]:
        if case["case"] in self.failures or case["case"] in self.mute:
            lines: list[dict[str, Any]] = super()._case(launch, case)
            return lines
        data = self.given[case["case"]] = Path(case["input"]).read_bytes()
        with torch.inference_mode():
            x = torch.from_numpy(np.frombuffer(data, "<f4").reshape(-1, 64).copy())
            answers = self.change(torch.cat([Linear()(row[None]) for row in x]).numpy())
        Path(case["output"]).write_bytes(np.ascontiguousarray(answers, "<f4").tobytes())
        outputs = [{"name": "out", "bytes": 4 * answers.shape[-1], "shape": [1, answers.shape[-1]]}]
        return [{"type": "inferred", "case": case["case"], "outputs": self.outputs or outputs}]


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """Runs the check on a device; nothing may be left of it, however it ends."""
    folder = tmp_path / "a run"
    folder.mkdir()

    def run(device: Any, *cases: Deployed, networks: Any = (NET, FLAT), installed: Any = None) -> dict[str, Agreement]:
        try:
            return check_on_device(
                cases or [FAKE["deployed"](tmp_path)],
                {one.name: one for one in networks},
                device,
                installed or FAKE["installed"](tmp_path),
                folder,
                cpu_mask=6,
            )
        finally:
            assert list(folder.iterdir()) == []
            assert list(Path(device.workdir).glob("check-*")) == []

    return run


def spoilt(ask: Any, tmp_path: Path, change: Any) -> Agreement:
    found: Agreement = ask(Answering(tmp_path / "device", change))["net.litert"]
    return found


def set_at(row: int, column: int, value: float) -> Any:
    def change(answers: Any) -> Any:
        answers[row, column] = value
        return answers

    return change


def test_exact_answers(ask: Any, tmp_path: Path) -> None:
    one = spoilt(ask, tmp_path, lambda answers: answers)
    assert (one.max_abs_error, one.relative_error, one.top1_agreement) == (0.0, 0.0, 1.0)
    assert one.cosine == pytest.approx(1.0, abs=1e-12) and one.agrees


@pytest.mark.parametrize(("factor", "agrees"), [(1 + 0.9e-3, True), (1 + 1.1e-3, False), (1 - 1.1e-3, False)])
def test_the_bound(ask: Any, tmp_path: Path, factor: float, agrees: bool) -> None:
    """Every answer times a factor: the error is the factor's, the angle none."""
    one = spoilt(ask, tmp_path, lambda answers: answers * np.float32(factor))
    assert one.relative_error == pytest.approx(abs(factor - 1), rel=1e-3)
    assert one.cosine == pytest.approx(1.0, abs=1e-9) and one.top1_agreement == 1.0
    assert one.agrees is agrees


def test_the_worst_input_counts(ask: Any, tmp_path: Path) -> None:
    def flip_the_third(answers: Any) -> Any:
        answers[2] *= -1
        return answers

    one = spoilt(ask, tmp_path, flip_the_third)
    assert one.relative_error == pytest.approx(2.0) and one.cosine == pytest.approx(-1.0)
    assert one.top1_agreement == 0.75 and not one.agrees
    assert "error 2 of the largest output (bound 0.001), top-1 agrees for 3 of 4 inputs;" in one.complaint


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_disagrees(ask: Any, tmp_path: Path, value: float) -> None:
    one = spoilt(ask, tmp_path, set_at(1, 3, value))
    assert not one.agrees and one.relative_error == math.inf == one.max_abs_error and math.isnan(one.cosine)
    assert one.top1_agreement == 0.75
    assert "its answers are not finite numbers, top-1 agrees for 3 of 4 inputs" in one.complaint
    document = json.loads(json.dumps(as_document(one), allow_nan=False))
    assert document["relative_error"] is document["cosine"] is document["max_abs_error"] is None
    assert document["agrees"] is False and document["inputs"] == 4


@pytest.mark.parametrize(("share", "agreed"), [(0.5, 1.0), (2.0, 0.75)])
def test_a_tie_within_the_bound_is_the_same_class(ask: Any, tmp_path: Path, share: float, agreed: float) -> None:
    """Torch's two largest outputs of input 0 are `share` times the bound apart; the device prefers the second."""
    module = Linear()

    class Tied(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = module(x)
            first, second = y.abs().argmax(1), (y.abs().argmax(1) + 1) % 10
            top = y.abs().max(1).values
            y[0, first], y[0, second] = top, top * (1 - share * 1e-3)
            return y

    def prefer_the_second(answers: Any) -> Any:
        for row in answers:
            first = np.abs(row).argmax()
            row[first] = np.abs(row[first])
            row[(first + 1) % 10] = row[first] * (1 - share * 1e-3)
        first = answers[0].argmax()
        answers[0, (first + 1) % 10] = answers[0, first] * (1 + 1e-6)
        return answers

    network = dataclasses.replace(NET, module=Tied())
    device = Answering(tmp_path / "device", prefer_the_second)
    assert ask(device, networks=[network])["net.litert"].top1_agreement == agreed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda answers: answers[:3], "it gave 120 bytes for 4 inputs"),
        (lambda answers: answers[:, :9], r"it gave 144 bytes for 4 inputs \(36 each\), not those of torch"),
        (lambda answers: answers[:0], "it gave 0 bytes for 4 inputs"),
    ],
)
def test_another_amount_of_answers_is_a_failure(ask: Any, tmp_path: Path, change: Any, words: str) -> None:
    one = spoilt(ask, tmp_path, change)
    assert not one.agrees and one.failed is not None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(one.failed)
    assert json.loads(json.dumps(as_document(one), allow_nan=False))["agrees"] is False


@pytest.mark.parametrize(
    "bad", [[{"name": "out"}], [{"name": "out", "bytes": "40"}], [{"bytes": -40}], [{"bytes": True}]]
)
def test_outputs_that_are_not_described_are_a_failure(ask: Any, tmp_path: Path, bad: Any) -> None:
    device = Answering(tmp_path / "device")
    device.outputs = bad
    assert ask(device)["net.litert"].failed == "the runner did not tell its outputs"


def test_a_failure_has_the_runtimes_last_words(ask: Any, tmp_path: Path) -> None:
    failures, logs = {"net.litert": "loading failed"}, {"net.litert": "INFO: hello\nERROR: no op FANCY\nmore error\n"}
    one = ask(Answering(tmp_path / "device", failures=failures, logs=logs))["net.litert"]
    assert one.failed == "loading failed; ERROR: no op FANCY"
    assert one.complaint == "net.litert could not be run on the device: loading failed; ERROR: no op FANCY"


def test_a_case_of_which_nothing_is_told_has_failed(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Answering(tmp_path / "device")
    monkeypatch.setattr(device, "_case", lambda launch, case: [])
    assert ask(device)["net.litert"].failed == "the runner reported nothing of it"


def test_a_runner_that_ends_badly_is_a_device_error(ask: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="the runner ended with status 2: bad job"):
        ask(Answering(tmp_path / "device", status=2, stderr=b"much\nbad job\n"))


def test_a_lost_link_leaves_nothing_here(ask: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match="gone"):
        ask(Answering(tmp_path / "device", raises=[DeviceLost("gone")]))


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    device, case = Answering(tmp_path / "device"), FAKE["deployed"](tmp_path)
    with pytest.raises(StorageError, match="cannot write"):
        check_on_device([case], {"net": NET}, device, FAKE["installed"](tmp_path), tmp_path / "no" / "folder")
    assert device.jobs == []


def test_what_a_killed_check_left_is_no_hindrance(ask: Any, tmp_path: Path) -> None:
    left = tmp_path / "a run" / ".check"
    left.mkdir()
    (left / "results.jsonl").write_text("old")
    assert ask(Answering(tmp_path / "device"))["net.litert"].agrees


def test_one_start_for_all_and_inputs_are_sent_once(ask: Any, tmp_path: Path) -> None:
    """A flat input is the same bytes for both runtimes, and so is an image of one channel; each is sent once."""
    cases = [FAKE["deployed"](tmp_path, name, runtime) for name in ("net", "flat") for runtime in RUNTIMES]
    device = Answering(tmp_path / "device")
    assert all(one.agrees for one in ask(device, *cases).values())
    (job,) = device.jobs
    assert [case["case"] for case in job] == ["net.onnxruntime", "net.litert", "flat.onnxruntime", "flat.litert"]
    assert {case["cpu_mask"] for case in job} == {"6"} and len({case["group"] for case in job}) == 4
    sent = [path for path in device.pushed if "/inputs/" in path]
    assert len(sent) == len(set(sent)) == 2
    assert device.given["flat.onnxruntime"] == device.given["flat.litert"] != device.given["net.litert"]


def test_each_bundle_has_a_start_of_its_own(ask: Any, tmp_path: Path) -> None:
    onnx, litert = (FAKE["deployed"](tmp_path, "net", runtime) for runtime in RUNTIMES)
    own = FAKE["installed"](tmp_path)["host"]
    installed = {
        "linux": dataclasses.replace(own, start=("loader", "--library-path", "x", "runner")),
        "android": dataclasses.replace(own, start=("other",)),
    }
    device = Answering(tmp_path / "device")
    cases = (dataclasses.replace(onnx, bundle="linux"), dataclasses.replace(litert, bundle="android"))
    assert all(one.agrees for one in ask(device, *cases, installed=installed).values())
    base = f"{device.workdir}/check-a run"
    starts = [command for command in device.commands if command[0] in ("loader", "other")]
    assert starts == [
        ("loader", "--library-path", "x", "runner", f"{base}/linux/job"),
        ("other", f"{base}/android/job"),
    ]
    assert [case["output"] for job in device.jobs for case in job] == [f"{base}/linux/0.out", f"{base}/android/0.out"]


def test_a_file_that_nobody_here_can_judge_is_not_sent(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import numerics, reference_outputs

    monkeypatch.setattr(numerics, "reference_of", lambda *_: reference_outputs._nobody("its input is int64"))
    device = Answering(tmp_path / "device")
    one = ask(device)["net.litert"]
    assert device.jobs == [] and one.inputs == 0 and one.agrees
    assert one.reference == "none: its input is int64" and one.complaint == ""
    assert as_document(one)["relative_error"] is None


def test_an_accuracy_row_takes_the_lowest_of_a_runtime_and_none_where_nothing_is_known(tmp_path: Path) -> None:
    from pipeline.numerics import Accuracy

    case = FAKE["deployed"](tmp_path)
    cases = [case, dataclasses.replace(case, id="net.litert.builtin"), FAKE["deployed"](tmp_path, "net", "onnxruntime")]
    base = Agreement("", "torch", 2, ("a", "b"), 0.0, 0.0, 1.0, 1.0, 1e-3)
    right = [
        dataclasses.replace(base, case=one.id, accuracy=Accuracy("data", value, 0.75))
        for one, value in zip(cases, (0.75, 0.5, 1.0), strict=True)
    ]
    expected = {"data": "data", "metric": "top1", "torch": 0.75, "litert": 0.5, "onnxruntime": 1.0}
    assert accuracy_row(right, cases) == expected
    assert accuracy_row([dataclasses.replace(base, case=case.id)], cases) is None
    assert accuracy_row([], cases) is None
