"""`handset search ranks`: what it prints and writes, its exit status, and one line where it was asked in vain."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from latency_luts import Context, Entry, LatencyTable, OpKey, save
from pipeline import cli, search_command
from pipeline.datasets import load
from pipeline.evaluate import top1
from pipeline.graph import count, kernels
from pipeline.schedule import Schedule
from pipeline.search.rank_space import AXES, outlined
from pipeline.spec import resolve
from pipeline.training import Recipe, fit, recalibrate

CONTEXT = Context(
    device="host", soc="EPYC", os_build="Debian 12", abi="arm64-v8a", runtime="litert", runtime_version="2.3.0",
    runtime_sha256="ab" * 32, delegate="xnnpack", threads=1, cpu_mask="0x2", clocks="not readable",
    handset_version="0.1.0", created="2026-11-21T12:00:00Z", simulated=False,
)  # fmt: skip
SHAPE = (1, 1, 8, 8)
Run = Callable[..., tuple[int, str, str]]
NETWORK = """
import torch
from torch import nn
def make(channels=1, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(32, classes),
    )
def small(): return make(), (1, 1, 8, 8)
def coloured(): return make(3), (1, 3, 8, 8)
def many(): return make(classes=1000), (1, 1, 8, 8)
def flat(): return nn.Sequential(nn.Conv2d(1, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 1, 8, 8)
"""
"""small: Tucker-2 has one layer for itself, "2", of 8 x 8 ranks."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`handset search ranks ...` -> exit status, stdout, stderr."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main(["search", "ranks", *map(str, argv)])
        except SystemExit as error:
            status = int(error.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network(folder: Path = Path()) -> nn.Module:
    module = resolve(f"{folder / 'nets.py'}:small").module
    assert module is not None
    return module


def times(keys: Iterable[OpKey]) -> dict[OpKey, int]:
    """Invented, in ns: mostly by the number of kernels, so that a chain takes longer than what it stands for."""
    return {key: 1000 + len(str(key)) + key.out_channels for key in keys}


def all_keys() -> set[OpKey]:
    module = network()
    ranks = [{}, *({"2": pair} for pair in itertools.product(range(1, 9), repeat=2))]
    return {use.key for one in ranks for use in kernels(outlined(module, "tucker2", one), SHAPE, "litert")}


def write_table(path: Path, keys: Iterable[OpKey], context: Context = CONTEXT) -> dict[OpKey, int]:
    known = times(keys)
    save(LatencyTable(context, tuple(Entry(key, ns, (ns, ns), (ns,), (), "kernel") for key, ns in known.items())), path,
         allow_simulated=True)  # fmt: skip
    return known


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `small`, trained; the statistics of its normalisation are those of something else."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "nets.py").write_text(NETWORK)
    module = network(folder)
    fit(module, load("digits").held_out(), Recipe(Schedule(0.05, 2)))
    with torch.no_grad():
        module.get_buffer("3.running_mean").add_(2)
    torch.save(module.state_dict(), folder / "w.pt")
    return folder / "w.pt"


def held_out_accuracy(module: nn.Module) -> float:
    """One image after another: what torch.export made takes no other batch."""
    data = load("digits").held_out()
    with torch.no_grad():
        logits = [module(torch.from_numpy(image[None])) for image in data.test_x]
    return top1(torch.cat(logits).numpy(), data.test_y)


def test_methods_are_those_of_the_search() -> None:
    assert sorted(search_command.METHODS) == sorted(AXES)


def test_the_front_by_macs_is_printed_and_written(run: Run, folder: Path, weights: Path) -> None:
    budget = 0.9 * count(network(), SHAPE).macs
    status, out, err = run(
        "nets.py:small", "--data", "digits", "--trials", 12, "--budget-macs", budget, "--out", "nets", "--json", "o.json",
        "--weights", weights,
    )  # fmt: skip
    assert status == 0 and err == "handset: small: 10 tensors from w.pt by the names of its own\n"
    document = json.loads(Path("o.json").read_text())
    trials, front = document["trials"], document["front"]
    judged = [one for one in trials if one["feasible"]]
    over = [one for one in trials if not one["feasible"]]
    title, header, *rows = out.splitlines()
    assert title == f"small by tucker2: 12 trials, {len(judged)} of them judged, {len(front)} on the front"
    assert header.split() == ["trial", "MACs", "parameters", "layers", "accuracy"]
    assert rows.pop() == f"{len(over)} trials over the budget of {budget:,.0f} MACs"
    assert [row.split()[:2] for row in rows] == [[str(one["number"]), f"{one['macs']:,}"] for one in front]
    assert [one["cost"] for one in front] == sorted(one["cost"] for one in front) and front[-1]["cost"] <= budget

    assert (document["schema_version"], document["kind"], document["unit"]) == (1, "search ranks", "MACs")
    assert (document["method"], document["budget"], document["study"]) == ("tucker2", budget, "small-tucker2")
    assert document["data"] == {"name": "digits", "train": 1295, "held_out": 142} and document["table"] is None
    assert document["network"]["macs"] == count(network(), SHAPE).macs and not document["stopped"]
    assert trials[0]["ranks"] == {} and trials[0]["accuracy"] is None and len(over) > 0
    assert all(one["cost"] == one["macs"] and one["coverage"] is None for one in trials)

    assert sorted(path.name for path in Path("nets").iterdir()) == sorted(Path(one["file"]).name for one in front)
    for one in front:
        module = resolve(one["file"]).module
        assert module is not None and count(module, SHAPE).macs == one["macs"]
        assert held_out_accuracy(module) == pytest.approx(one["accuracy"])


def test_batch_normalisation_is_calibrated_on_training_images_first(run: Run, folder: Path, weights: Path) -> None:
    asked = ("nets.py:small", "--data", "digits", "--trials", 1, "--json", "o.json", "--weights", weights)
    assert run(*asked)[0] == 0
    (trial,) = json.loads(Path("o.json").read_text())["trials"]
    module = network()
    module.load_state_dict(torch.load(weights, weights_only=True))
    before = held_out_accuracy(module)
    recalibrate(module, load("digits").held_out())
    assert trial["accuracy"] == held_out_accuracy(module) > max(0.5, before + 0.1)


def test_milliseconds_are_the_tables(run: Run, folder: Path) -> None:
    known = write_table(folder / "t.parquet", all_keys())
    status, out, err = run("nets.py:small", "--data", "digits", "--lut", "t.parquet", "--trials", 12, "--json", "o.json")
    assert (status, err) == (0, "")
    document = json.loads(Path("o.json").read_text())
    assert document["unit"] == "ms" and document["table"]["path"] == "t.parquet"
    assert document["table"]["context"]["runtime"] == "litert"
    assert len({str(one["ranks"]) for one in document["trials"]}) > 4
    for one in document["trials"]:
        ranks = {layer: tuple(some) for layer, some in one["ranks"].items()}
        uses = kernels(outlined(network(), "tucker2", ranks), SHAPE, "litert")
        assert one["cost"] == pytest.approx(sum(known[use.key] for use in uses) / 1e6) and one["coverage"] == 1.0
    header, *rows = out.splitlines()[1:]
    assert header.split() == ["trial", "ms", "measured", "MACs", "parameters", "layers", "accuracy"]
    assert [row.split()[2:4] for row in rows] == [["100", "%"]] * len(document["front"])


def test_a_budget_in_milliseconds(run: Run, folder: Path) -> None:
    known = write_table(folder / "t.parquet", all_keys())
    whole = sum(known[use.key] for use in kernels(network(), SHAPE, "litert")) / 1e6
    asked = ("nets.py:small", "--data", "digits", "--lut", "t.parquet", "--trials", 9)
    status, out, err = run(*asked, "--budget-ms", whole / 100)
    assert (status, out) == (2, "") and re.search(r"no trial of 9 meets the budget of \S+: the smallest costs", err)
    status, out, _ = run(*asked, "--budget-ms", 1.01 * whole)
    assert status == 0 and out.splitlines()[2].split()[0] == "0"  # every decomposition takes longer
    assert re.fullmatch(r"\d trials over the budget of 0\.\d+ ms", out.splitlines()[-1])


def test_kernels_that_the_table_lacks(run: Run, folder: Path) -> None:
    module = network()
    write_table(folder / "t.parquet", {use.key for use in kernels(module, SHAPE, "litert")})
    asked = ("nets.py:small", "--data", "digits", "--lut", "t.parquet", "--json", "o.json")
    status, out, _ = run(*asked, "--trials", 9)
    document = json.loads(Path("o.json").read_text())
    without = [one for one in document["trials"] if one["cost"] is None]
    assert status == 0 and [one["number"] for one in document["front"]] == [0] and without
    why = without[0]["why"]
    assert re.match(r"the table does not know conv2d\[in=1x8x8x8 out=\d.*\] and \d more$", why)
    assert 0 < without[0]["coverage"] < 1
    plural = "trials" if len(without) > 1 else "trial"
    assert out.splitlines()[-1] == f"{len(without)} {plural} without a price; of the first: {why}"
    write_table(folder / "t.parquet", list(times(all_keys()))[:1])
    status, out, err = run(*asked, "--trials", 2)
    assert (status, out) == (2, "") and "no network that was tried has a price: the table does not know" in err


def test_a_table_that_is_not_measured_says_so(run: Run, folder: Path) -> None:
    keys = {use.key for use in kernels(network(), SHAPE, "litert")}
    write_table(folder / "t.parquet", keys, dataclasses.replace(CONTEXT, simulated=True))
    status, out, _ = run("nets.py:small", "--data", "digits", "--lut", "t.parquet", "--trials", 1)
    assert status == 0 and out.splitlines()[-1] == "SIMULATED: these numbers are not measurements"


def test_weights_of_a_file_are_searched(run: Run, folder: Path) -> None:
    module = network()
    with torch.no_grad():
        module.get_parameter("7.weight").zero_()
        module.get_parameter("7.bias").copy_(torch.arange(10.0))
    torch.save(module.state_dict(), "w.pt")
    asked = ("nets.py:small", "--data", "digits", "--trials", 1, "--json", "o.json")
    status, _, err = run(*asked, "--weights", "w.pt")
    document = json.loads(Path("o.json").read_text())
    nines = (load("digits").held_out().test_y == 9).mean()
    assert status == 0 and document["trials"][0]["accuracy"] == nines
    assert document["network"]["weights"]["file"] == "w.pt" and "from w.pt" in err


@pytest.mark.parametrize("stored", [True, False])
def test_ctrl_c_prints_the_front_and_the_command_that_goes_on(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    seen: list[nn.Module] = []

    def judge(dataset: object) -> Callable[[nn.Module], float]:
        def judged(module: nn.Module) -> float:
            if len(seen) == 3:
                raise KeyboardInterrupt
            seen.append(module)
            return 0.5

        return judged

    monkeypatch.setattr(search_command, "_judge", judge)
    asked = ["nets.py:small", "--data", "digits", "--trials", "9", "--out", "nets", "--json", "o.json", "--study", "a b"]
    more = ["--storage", "sqlite:///r.db"] if stored else []
    status, out, err = run(*asked, *more)
    document = json.loads(Path("o.json").read_text())
    count = len(document["trials"])
    assert status == 130 and document["stopped"] and 3 <= count < 9 and len(document["front"]) == 1
    assert out.startswith(f"small by tucker2: {count} trials, {count} of them judged, 1 on the front\n")
    assert not Path("nets").exists()
    (line,) = err.splitlines()
    command = (
        "handset search ranks nets.py:small --data digits --method tucker2 --trials 9 --seed 0 "
        "--storage sqlite:///r{}.db --study 'a b' --out nets --json o.json"
    )
    if not stored:
        told = f"stopped; {count} trials were in memory alone; keep them next time: "
        assert line == f"handset: {told}" + command.format("anks")
        return
    assert line == f"handset: stopped; {count} trials are in the study; go on with: " + command.format("")
    seen.clear()
    monkeypatch.setattr(search_command, "_judge", lambda dataset: lambda module: seen.append(module) or 0.5)
    status, _, err = run(*asked, *more)
    document = json.loads(Path("o.json").read_text())
    assert (status, err, len(document["trials"])) == (0, "", 9)
    assert len(seen) == len({str(one["ranks"]) for one in document["trials"]}) - 3


def test_a_password_is_not_printed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = cli.make_parser()
    words = ["search", "ranks", "m", "--data", "digits", "--storage", "mysql://u:secret@h/d"]
    said = search_command._stopped(parser.parse_args(words), 3)
    assert "--storage 'mysql://u:***@h/d'" in said and "secret" not in said


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["nets.py:small"], 2, "--data"),
        (["nets.py:small", "--data", "mnist"], 2, "there is no data 'mnist'"),
        (["nets.py:small", "--data", "digits", "--method", "alds"], 2, "'alds'"),
        (["nets.py:small", "--data", "digits", "--trials", "0"], 2, "'0' is not a number from 1"),
        (["nets.py:small", "--data", "digits", "--seed", "-1"], 2, "'-1' is not a number from 0"),
        (["nets.py:small", "--data", "digits", "--budget-macs", "nan"], 2, "'nan' is not a number above 0"),
        (["nets.py:small", "--data", "digits", "--budget-macs", "0"], 2, "'0' is not a number above 0"),
        (["nets.py:small", "--data", "digits", "--budget-macs", "9"], 2, "no trial of 9 meets the budget of 9"),
        (["nets.py:small", "--data", "digits", "--budget-ms", "1"], 2, "--budget-ms was given without a table"),
        (["nets.py:small", "--data", "digits", "--lut", "t", "--budget-macs", "1"], 2, "given with a table"),
        (["nets.py:small", "--data", "digits", "--lut", "nets.py"], 2, "nets.py"),
        (["nets.py:coloured", "--data", "digits"], 2, "coloured takes 3x8x8, the images of digits are 1x8x8"),
        (["nets.py:many", "--data", "digits"], 2, "many gives 1x1000, and digits has 10 classes"),
        (["nets.py:flat", "--data", "digits"], 2, "Sequential has no layer that tucker2 makes smaller"),
        (["nets.py:none", "--data", "digits"], 2, "no function 'none'"),
        (["nets.py:small", "--data", "digits", "--storage", "nonsense"], 2, "no study can be kept in what was given"),
        (["nets.py:small", "--data", "digits", "--weights", "absent.pt"], 2, "absent.pt"),
        (["nets.py:small", "--data", "digits", "--json", "nets.py"], 2, "is a file that is read"),
        (["nets.py:small", "--data", "digits", "--json", "absent/o.json"], 1, "absent"),
        (["nets.py:small", "--data", "digits", "--out", "nets.py"], 2, "--out nets.py is there, and is no empty folder"),
        (["nets.py:small", "--data", "digits", "--out", "."], 2, "is no empty folder"),
        (["nets.py:small", "--data", "digits", "--out", "absent/nets"], 1, "cannot write into absent/nets"),
    ],
)
def test_one_line_where_asked_in_vain(run: Run, folder: Path, argv: list[str], status: int, said: str) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    more = ["--trials", "9"] if "--trials" not in argv else []
    got, out, err = run(*argv, *more)
    assert (got, out) == (status, "")
    assert err.startswith("handset: ") and err.count("\n") == 1 and said in err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_file_whose_layers_cannot_be_replaced_is_refused(run: Run, folder: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, SHAPE) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "graph", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), "net.onnx")
    torch.export.save(torch.export.export(network(), (torch.zeros(SHAPE),)), "net.pt2")
    for name in ("net.onnx", "net.pt2"):
        status, out, err = run(name, "--data", "digits")
        assert (status, out) == (2, "") and f"{name} has no module whose layers could be decomposed" in err
