"""`handset compress`: trials made, stopped, gone on with, measured; what it refuses before minutes of work."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline import cli, training
from pipeline.compression import published
from pipeline.compression.budget import Budget, parse
from pipeline.compression.methods import METHODS, settings_of
from pipeline.compression.request import Asked, Tuning, command_of, plan_of, planned
from pipeline.compression.summary import lines
from pipeline.datasets import load
from pipeline.errors import UsageError
from pipeline.evaluate import accuracy
from pipeline.graph import count
from pipeline.models import MODELS
from pipeline.spec import resolve

Document = dict[str, Any]
QUICK = ("--data", "digits", "--finetune-epochs", "1", "--every", "6")


def run(folder: Path, *words: str) -> tuple[int, Document]:
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    status = cli.main(["compress", *words, "--reports", str(folder), "--json", str(out)])
    return status, json.loads(out.read_text("utf-8")) if out.exists() else {}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Document, Path]:
    """Three methods on the digits network, trained, measured in one runtime."""
    folder = tmp_path_factory.mktemp("compress")
    status, document = run(
        folder, "svd,deeptwist:svd,svd:ratio", "digits_cnn", "--budget", "50%macs", *QUICK, "--runtime", "litert",
        "--measure-seconds", "0.1",
    )  # fmt: skip
    assert status in (0, 4)
    return document, folder / document["run"]


def test_every_point_is_a_network_that_bench_takes_with_the_accuracy_and_counts_it_is_said_to_have(
    compared: tuple[Document, Path],
) -> None:
    document, folder = compared
    assert [one["method"] for one in document["points"]] == ["", "svd", "deeptwist:svd", "svd:ratio"]
    whole = document["points"][0]
    assert whole["params"] == MODELS["digits_cnn"].params and whole["macs"] == MODELS["digits_cnn"].macs
    for point in document["points"]:
        network = resolve(str(folder / point["file"]))
        assert network.module is not None and network.params == point["params"]
        assert count(network.module, network.input_shape).macs == point["macs"]
        top1 = point["top1"]["before"] if not point["method"] else point["top1"]["after"]
        assert _one_by_one(network.module) == pytest.approx(top1, abs=0.003)
        assert all(cell["failed"] == "" and cell["latency_ms"] > 0 for cell in point["measured"])
        assert [cell["runtime"] for cell in point["measured"]] == ["litert"]
    assert all(point["macs"] <= 0.5 * whole["macs"] for point in document["points"][1:])


def _one_by_one(module: torch.nn.Module) -> float:
    """A .pt2 program has batch 1."""
    data = load("digits")
    with torch.inference_mode():
        found = [int(module(image[None]).argmax()) for image in torch.from_numpy(data.test_x)]
    return float((np.array(found) == data.test_y).mean())


def test_deeptwist_has_the_ranks_of_the_method_that_it_is_beside(compared: tuple[Document, Path]) -> None:
    plain, twisted = (
        {one["layer"]: one["ranks"] for one in point["layers"]} for point in compared[0]["points"] if "svd" in point["method"]
        and "ratio" not in point["method"]
    )  # fmt: skip
    assert plain == twisted and plain
    before = [point["top1"]["before"] for point in compared[0]["points"][1:3]]
    assert before[0] == before[1]
    assert all(len(point["loss"]) == 1 for point in compared[0]["points"][1:])


def test_every_layer_has_its_part_of_the_measured_kernels(compared: tuple[Document, Path]) -> None:
    document, folder = compared
    (bench,) = (folder / "measured").glob("*/result.json")
    sums = {one["network"]: one["kernels_sum_ms"] for one in json.loads(bench.read_text("utf-8"))["profiles"]}
    for point in document["points"][1:]:
        times = [time for layer in point["layers"] for time in layer["measured"]]
        assert len(times) == len(point["layers"]) > 0 and {time["runtime"] for time in times} == {"litert"}
        assert all(time["ms_before"] >= 0 and time["ms_after"] >= 0 for time in times)  # its clock ticks in µs
        before, after = (sum(time[key] for time in times) for key in ("ms_before", "ms_after"))
        assert 0 < before <= sums["digits_cnn"] + 1e-9 and 0 < after <= sums[point["name"]] + 1e-9


def test_the_summary_has_a_row_a_point_and_the_page_is_redrawn(
    compared: tuple[Document, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    document, folder = compared
    said = lines(document, folder / "index.html")
    rows = [line.split()[0] for line in said[2:6]]
    assert rows == ["(as", "svd", "deeptwist:svd", "svd:ratio"] and said[0].startswith("method")
    assert "speed-up" in said[0] and said[3].rstrip().endswith("x")
    page = folder / "index.html"
    before = page.read_text("utf-8")
    page.unlink()
    assert cli.main(["report", str(folder)]) == 0
    assert page.read_text("utf-8") == before
    assert capsys.readouterr().out.strip() == str(page)


def test_what_was_finished_when_it_was_stopped_is_not_made_again(
    few: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[int] = []
    whole = training.fit

    def fit(module: Any, dataset: Any, recipe: Any, seed: int = 0, *others: Any) -> list[float]:
        if recipe.batch_size == 64:  # the network of the zoo itself
            return whole(module, dataset, recipe, seed, *others)
        trained.append(seed)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return whole(module, few(dataset, 200), recipe, seed, *others)

    monkeypatch.setattr(training, "fit", fit)
    words = ("svd", "digits_cnn", "--budget", "70%,50%", *QUICK, "--no-measure", "--seeds", "2")
    status, document = run(tmp_path, *words)
    assert status == 130 and document == {} and trained == [0, 0]
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert f"handset compress --resume {folder}" in capsys.readouterr().err
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("artifacts/*70*")}
    assert kept
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    (folder / "plan.json").write_text(json.dumps(plan | {"weights_sha256": "0" * 64}))
    assert cli.main(["compress", "--resume", str(folder)]) == 2
    assert "is not the file any more" in capsys.readouterr().err
    (folder / "plan.json").write_text(json.dumps(plan))
    assert cli.main(["compress", "--resume", str(folder), "--json", str(tmp_path / "out.json")]) == 0
    assert trained == [0, 0, 0, 1, 1]
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [(one["budget"], one["seed"]) for one in document["points"]] == [
        ("", 0), ("70%", 0), ("50%", 0), ("70%", 1), ("50%", 1)
    ]  # fmt: skip
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in folder.glob("artifacts/*")}.items()
    assert document["points"][1]["loss"] != document["points"][3]["loss"]


def test_rounds_are_points_of_a_curve_and_the_last_meets_the_budget(
    few: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.fit
    monkeypatch.setattr(
        training, "fit", lambda module, dataset, *others: whole(module, few(dataset, 64), *others), raising=True
    )
    status, document = run(tmp_path, "alds", "digits_cnn", "--budget", "25%", *QUICK, "--no-measure", "--rounds", "2")
    first, second = document["points"][1:]
    assert status == 0 and (first["round"], second["round"]) == (1, 2)
    assert [one["params"] <= keep * document["network"]["params"] for one, keep in ((first, 0.5), (second, 0.25))] == [True] * 2
    assert first["file"] != second["file"] and document["training"]["rounds"] == 2


@pytest.mark.parametrize("method", ["svd", "deeptwist:svd"])
def test_the_network_as_it_was_is_the_teacher(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = training.fit, []

    def fit(module: nn.Module, dataset: Any, recipe: Any, *others: Any) -> list[float]:
        if recipe.batch_size == 64:  # the network of the zoo itself
            return whole(module, dataset, recipe, *others)
        teacher = others[-1]
        seen.append((recipe.distill, sum(one.numel() for one in teacher.parameters()), teacher is not module))
        return [0.0]

    monkeypatch.setattr(training, "fit", fit)
    words = (method, "digits_cnn", "--budget", "50%", *QUICK, "--no-measure", "--distill", "0.75")
    status, document = run(tmp_path, *words)
    assert status == 0 and seen == [(0.75, document["network"]["params"], True)]
    assert document["training"]["distill"] == 0.75 and "--distill 0.75" in document["command"]


def test_settings_are_chosen_without_the_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, data, seen = training.fit, load("digits"), []

    def fit(module: nn.Module, dataset: Any, recipe: Any, *others: Any) -> list[float]:
        if recipe.batch_size == 64:  # the network of the zoo itself
            return whole(module, dataset, recipe, *others)
        seen.append({image.tobytes() for image in dataset.train_x})
        return [0.0]

    monkeypatch.setattr(training, "fit", fit)
    status, document = run(tmp_path, "svd", "digits_cnn", "--budget", "80%", *QUICK, "--no-measure", "--held-out")
    split = data.held_out()
    assert status == 0 and document["data"]["held_out"] and document["data"]["test"] == len(split.test_y)
    (trained,) = seen
    assert not trained & {image.tobytes() for image in split.test_x}  # no image is there twice
    whole_network = resolve("digits_cnn").module
    assert whole_network is not None and document["points"][0]["top1"]["before"] == accuracy(whole_network, split)
    assert document["notes"][0].startswith(f"judged by {len(split.test_y)} held out training images, which digits_cnn itself")
    assert "--data digits" in document["command"] and "--held-out" in document["command"]


def test_one_that_cannot_be_made_is_left_out_where_there_are_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, document = run(tmp_path, "svd", "digits_cnn", "--budget", "100,50%", "--no-measure")
    assert status == 1 and [one["budget"] for one in document["points"]] == ["", "50%"]
    assert "svd at 100, seed 0: a budget of 100 params cannot be met" in document["notes"][0]
    assert document["command"].endswith("--budget 100,50% --no-measure")
    assert "left out: svd at 100" in capsys.readouterr().err
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    status, document = run(tmp_path, "svd", "digits_cnn", "--budget", "100", "--no-measure")
    assert status == 2 and document == {}
    assert sorted(path for path in tmp_path.iterdir() if path.is_dir()) == folders


def test_out_is_the_networks_file(tmp_path: Path) -> None:
    out = tmp_path / "small.pt2"
    words = ("tucker2", "digits_cnn", "--budget", "evbmf", "--no-measure", "--out", str(out))
    status, document = run(tmp_path, *words)
    network = resolve(str(out))
    assert run(tmp_path, "svd", str(out), "--no-measure")[0] == 2  # a graph has no layers to replace
    assert status == 0 and network.params == document["points"][-1]["params"] < document["network"]["params"]
    assert network.module is not None
    assert run(tmp_path, *words)[0] == 2  # it is there already
    assert run(tmp_path, *words, "--force")[0] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "no network was named"),
        (("svd",), "no network was named"),
        (("wobble", "digits_cnn"), "there is no compression method 'wobble'; try: alds"),
        (("svd", "digits_cnm"), "there is no network 'digits_cnm'; try: digits_cnn"),
        (("svd", "digits_cnn", "--budget", "half"), "'half' is no budget; try: 25%"),
        (("svd", "digits_cnn", "--budget", "120%"), "'120%' is no budget"),
        (("svd", "digits_cnn", "--budget", "0.4ms"), "a budget in ms was asked without a latency table; try: --lut"),
        (("svd", "digits_cnn", "--budget", "40%ms"), "a share of milliseconds is no budget"),
        (("svd", "digits_cnn", "--finetune-epochs", "2"), "2 epochs were asked without data"),
        (("svd", "digits_cnn", "--held-out"), "--held-out was asked without data; try: --data digits"),
        (("deeptwist", "digits_cnn", "--data", "digits"), "deeptwist is a way to train; try: --data D --finetune-epochs N"),
        (("alds", "digits_cnn", "--budget", "evbmf"), "alds has no ranks by EVBMF"),
        (("alds", "digits_cnn", "--budget", "energy=0.9"), "alds was given an energy"),
        (("deeptwist", "digits_cnn", *QUICK, "--rounds", "3"), "deeptwist was asked in 3 rounds, and has one"),
        (("svd", "digits_cnn", "--rounds", "3"), "3 rounds were asked without retraining"),
        (("svd", "digits_cnn", "--rounds", "3", *QUICK, "--budget", "50k"), "rounds were asked with the budget 50k"),
        (("svd", "resnet20", "--data", "digits"), "resnet20 takes 3x32x32, the images of digits are 1x8x8"),
        (("svd", "digits_cnn", "--data", "cifar10:/nowhere"), "cannot read /nowhere/train.parquet"),
        (("svd", "digits_cnn", "--out", "x.onnx"), "--out x.onnx is no .pt2 file"),
        (("svd,cp", "digits_cnn", "--out", "x.pt2"), "--out is for one method, one budget and one seed"),
        (("svd", "digits_cnn", "--resume", "x"), "--resume goes on with what that run was asked"),
        (("svd", "digits_cnn", "--lut", "/nowhere.parquet"), "/nowhere.parquet"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compress", *words, *(() if "--resume" in words else ("--reports", str(tmp_path)))]) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and complaint in said[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "kind", "value", "unit"),
    [
        ("25%", "keep", 0.25, "params"), ("40%macs", "keep", 0.4, "macs"), ("68000", "amount", 68000, "params"),
        ("3.5Mmacs", "amount", 3.5e6, "macs"), ("68kparams", "amount", 68e3, "params"), ("0.4ms", "amount", 0.4, "ms"),
        ("energy=0.9", "energy", 0.9, "params"), ("evbmf", "evbmf", 0, "params"),
    ],
)  # fmt: skip
def test_budgets(text: str, kind: str, value: float, unit: str) -> None:
    found = parse(text)
    assert (found.kind, found.value, found.unit, found.text) == (kind, pytest.approx(value), unit, text)


@pytest.mark.parametrize("text", ["", "0", "0%", "1e9", "-5", "25 %", "energy=2", "energy=", "nan", "5ms%", "9" * 13])
def test_what_is_no_budget_says_so(text: str) -> None:
    with pytest.raises(UsageError, match="is no budget; try: 25%, 40%macs"):
        parse(text)


@given(st.floats(0.01, 0.99), st.integers(1, 9))
def test_rounds_go_to_a_budget_in_equal_ratios(share: float, rounds: int) -> None:
    budget = Budget("x", "keep", share, "macs")
    kept = [1.0, *(budget.share((number + 1) / rounds).value for number in range(rounds))]
    assert kept[-1] == share
    assert all(after / before == pytest.approx(share ** (1 / rounds)) for before, after in itertools.pairwise(kept))
    assert budget.share(0.5).settings()["unit"] == "macs"


def test_a_plan_and_a_command_line_ask_for_the_same_again(tmp_path: Path) -> None:
    tuning = Tuning(3, 0.1, "steps", 182, 0.5, 64, 1e-4, 2, "cpu", True, 0, 0.5)
    asked = Asked(
        ("svd", "deeptwist:alds"), "resnet20", ("25%", "40%macs"), tmp_path, "w.pt", "cifar10:/x", True, tuning, 2, 1,
        "t.parquet", "pixel", ("litert",), 2.0,
    )  # fmt: skip
    assert planned(json.loads(json.dumps(plan_of(asked))), tmp_path / "run") == dataclasses.replace(
        asked, resume=tmp_path / "run"
    )
    parser = cli.make_parser()
    from pipeline.compress_command import _asked

    again = _asked(parser.parse_args([*command_of(asked).split()[1:], "--reports", str(tmp_path)]))
    assert again == asked


@pytest.mark.parametrize(
    "change",
    [{"kind": "bench"}, {"tuning": {}}, {"seeds": "2"}, {"budgets": [1]}, {"methods": ["x"]}, {"held_out": 1}],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, change: Document) -> None:
    plan = plan_of(Asked(("svd",), "digits_cnn", ("50%",), tmp_path))
    with pytest.raises(UsageError):
        planned({**plan, **change}, tmp_path)


def test_published_numbers_are_of_networks_of_the_zoo_and_shares() -> None:
    assert {one.network for one in published.PUBLISHED} <= set(MODELS)
    (alds,) = [one for one in published.of("resnet20") if one.method == "ALDS"]
    assert (alds.delta_top1, alds.params_removed, alds.macs_removed) == (-0.47, 0.7491, 0.6786)
    assert all(0 < (one.params_removed or 0.5) < 1 for one in published.PUBLISHED)
    assert published.of("mobilenet_v2") == []


def test_every_word_for_a_method_makes_a_compressor() -> None:
    from pipeline.compress import COMPRESSORS, build

    assert {name for name, _ in METHODS.values()} == set(COMPRESSORS)
    for word in METHODS:
        name, settings = settings_of(word)
        assert build(name, keep=0.5, **settings).name == name


def test_the_digits_network_keeps_its_accuracy_when_it_is_not_compressed() -> None:
    network = resolve("digits_cnn")
    assert network.module is not None and accuracy(network.module, load("digits")) >= 0.975
