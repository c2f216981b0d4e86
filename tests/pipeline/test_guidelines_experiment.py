"""`handset guidelines --experiment`: two networks really measured, what is made of them, and what stops it."""

from __future__ import annotations

import copy
import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.errors import DeviceLost
from pipeline import cli
from pipeline.errors import UsageError
from pipeline.guidelines.experiment import document as document_module
from pipeline.guidelines.experiment import measure, paper
from pipeline.guidelines.experiment.document import experiment_document
from pipeline.guidelines.experiment.page import page, render
from pipeline.guidelines.experiment.paper import TABLES, variants
from pipeline.guidelines.experiment.summary import lines

BROWSER = runpy.run_path(str(Path(__file__).with_name("test_report_browser.py")))
QUICK = ("--runtime", "litert", "--launches", "1", "--budget", "0.2")
Document = dict[str, Any]
Speed = Callable[[Any, str], float | None]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Document, Path]:
    """Table 1 with two of its networks, run as it is typed: exit status, document, run folder."""
    whole = TABLES["g1"]
    first, *_, last = whole.rows
    small = paper.PaperTable(
        "g1", whole.title, whole.claim, whole.setting, ("x1",), (1,), (first, last), ((first.label, last.label),)
    )
    folder = tmp_path_factory.mktemp("experiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module in (paper, measure, document_module):
            patch.setattr(module, "TABLES", {"g1": small})
        status = cli.main(["guidelines", "--experiment", "g1", *QUICK, "--json", "out.json"])
        document = json.loads((folder / "out.json").read_text("utf-8"))
        run = folder / "reports" / document["run"]
        before = sorted(run.glob("launch-*"))
        assert cli.main(["guidelines", "--resume", str(run), "--json", "again.json"]) == status
        assert sorted(run.glob("launch-*")) == before, "a finished run was measured again"
        again = json.loads((folder / "again.json").read_text("utf-8"))
        assert again["tables"] == document["tables"] and again["command"] == document["command"]
    return status, document, run


def bench_of(tables: tuple[str, ...], speed: Speed, **device: Any) -> Document:
    """What a bench of these tables would find, were a network as fast as `speed` says; None is a failure."""
    found = [one for name in tables for one in variants(TABLES[name])]
    profiles = []
    for one in found:
        for runtime in ("onnxruntime", "litert"):
            profile: Document = {"network": one.name, "runtime": runtime, "runtime_version": "1.0", "failed": None}
            if (images_per_s := speed(one, runtime)) is None:
                profile["failed"] = "<b>it \x1b[31mfell over</b>"
            else:
                ms = 1000 / images_per_s
                profile["latency_ms"] = {"corrected": {"median": ms, "interval": [0.99 * ms, 1.01 * ms]}}
                profile["verdict"] = {"stable": one.scale < 4, "reasons": [] if one.scale < 4 else ["too noisy"]}
            profiles.append(profile)
    return {
        "run": "run-1", "created": "2026-11-21T12:00:00Z", "settings": {"threads": 1}, "notes": [],
        "device": {"name": "host", "simulated": False, **device},
        "networks": [{"name": one.name, "input_shape": [1, 9, 56, 56], "macs": 64_000_000} for one in found],
        "profiles": profiles,
    }  # fmt: skip


def as_the_paper(one: Any, runtime: str) -> float:
    return 5 * float(one.paper_images_per_s)


def made(speed: Speed = as_the_paper, tables: tuple[str, ...] = ("g1",), **device: Any) -> Document:
    return experiment_document(tables, bench_of(tables, speed, **device), "handset guidelines --experiment g1")


def test_a_table_is_measured_and_told_beside_the_paper(measured: tuple[int, Document, Path]) -> None:
    status, document, run = measured
    assert status == 4  # one launch tells no variance
    assert document == json.loads((run / "experiment.json").read_text("utf-8"))
    words = "--experiment g1 --device host --runtime litert --budget 0.2 --launches 1"
    assert document["command"] == f"handset guidelines {words}"
    assert document["settings"]["launch_s"] == 0.2 and document["settings"]["threads"] == 1
    (table,) = document["tables"]
    (column,) = table["columns"]
    assert [(row["label"], row["paper_images_per_s"]) for row in column["rows"]] == [("1:1", 76.2), ("1:12", 57.6)]
    for row in column["rows"]:
        (cell,) = row["measured"]
        assert cell["images_per_s"] * cell["latency_ms"] == pytest.approx(1000)
        assert cell["interval"][0] <= cell["images_per_s"] <= cell["interval"][1]
        assert 20 < cell["images_per_s"] < 20_000
    compared = column["runtimes"][0]["compared"]
    assert compared["same"] + compared["open"] + len(compared["reversals"]) == 1
    assert (run / "experiment.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("of", ["", "experiment.json"])
def test_report_redraws_the_page_of_the_experiment_too(
    measured: tuple[int, Document, Path], of: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(measured[2], run)
    pages = ["experiment.html"] if of else ["index.html", "experiment.html"]
    before = {name: (run / name).read_text("utf-8") for name in pages}
    for name in pages:
        (run / name).unlink()
    assert cli.main(["report", str(run / of)]) == 0
    assert capsys.readouterr().out.split() == [str(run / name) for name in pages]
    assert {name: (run / name).read_text("utf-8") for name in pages} == before


def test_a_run_of_a_bench_is_none_of_an_experiment(measured: tuple[int, Document, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(measured[2], run)
    plan = json.loads((run / "plan.json").read_text("utf-8"))
    (run / "plan.json").write_text(json.dumps(plan | {"models": ["resnet20"]}))
    with pytest.raises(UsageError, match="is no run of handset guidelines --experiment"):
        measure.resumed(run)


def test_what_a_resumed_run_builds_is_never_taken_from_its_plan(tmp_path: Path) -> None:
    """A plan may come from elsewhere: its networks are known by name alone."""
    names = [f"/elsewhere/networks.py:{one.name}" for one in variants(TABLES["g2"])]
    plan = {"schema_version": 1, "kind": "bench", "models": names, "device": "host", "settings": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    asked = measure.resumed(tmp_path)
    assert asked.tables == ("g2",) and asked.request.models == measure.models_of(("g2",))
    assert not any("elsewhere" in text for text in asked.request.models)


def test_the_papers_own_speeds_are_ordered_as_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    document = made(tables=tuple(TABLES))
    for table in document["tables"]:
        for column in table["columns"]:
            for one in column["runtimes"]:
                assert one["compared"]["reversals"] == []
    assert document["tables"][0]["sentences"][0]["text"] == (
        "G1 in onnxruntime holds at x1, x2, x4: 18 of 18 pairs ordered as in the paper, 0 the other way round"
    )
    assert document["tables"][4]["sentences"][1]["text"].startswith("Table 8 in litert: ")


def upside_down(one: Any, runtime: str) -> float:
    return 1000 / float(one.paper_images_per_s) if runtime == "litert" else as_the_paper(one, runtime)


def test_a_guideline_that_does_not_hold_is_said_with_its_pairs() -> None:
    document = made(upside_down)
    text = "\n".join(lines(document, Path("reports/x/experiment.html")))
    assert (
        "G1 in litert does not hold at x1, x2, x4: 0 of 18 pairs ordered as in the paper, 18 the other way round"
        in text
    )
    assert "G1 in onnxruntime holds at x1, x2, x4" in text
    assert "otherwise x2, litert: 1:12 over 1:1: 44 % faster, in the paper 30 % slower" in text
    assert "otherwise 12 more pairs, on the page" in text


def test_failures_and_unstable_speeds_are_told_and_are_in_no_order() -> None:
    document = made(lambda one, runtime: None if one.row.label == "1:1" else as_the_paper(one, runtime))
    assert document["counts"] == {"measured": 18, "failed": 6, "unstable": 6}
    assert document["tables"][0]["columns"][0]["runtimes"][0]["guideline"]["verdict"] == "open"
    text = "\n".join(lines(document, Path("x/y.html")))
    assert "failed    g1_1to1_x1 in litert: <b>it fell over</b>" in text and "\x1b" not in text
    html = page(document)
    assert "<b>it" not in html and "&lt;b&gt;it fell over&lt;/b&gt;" in html and "\x1b" not in html


def test_an_interval_that_begins_at_nothing_is_no_speed() -> None:
    bench = bench_of(("g1",), as_the_paper)
    bench["profiles"][0]["latency_ms"]["corrected"]["interval"][0] = 0.0
    document = experiment_document(("g1",), bench, "handset guidelines --experiment g1")
    cell = document["tables"][0]["columns"][0]["rows"][0]["measured"][0]
    assert "of which the interval begins at 0" in cell["failed"] and document["counts"]["failed"] == 1
    assert "too unstable to tell a speed" in page(document)


def test_a_simulated_device_says_so_in_everything() -> None:
    document = made(simulated=True)
    assert document["device"]["simulated"] is True
    assert lines(document, Path("x/y.html"))[0].startswith("SIMULATED")
    assert "<b>SIMULATED</b>" in page(document) and "SIMULATED" not in page(made())


@pytest.mark.parametrize(
    "change", [{"kind": "bench"}, {"schema_version": 99}, {"tables": [{"name": 3}]}, {"device": {"name": "x"}}]
)
def test_a_document_that_is_no_experiment_gets_no_page(change: Document, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the result document"):
        render({**copy.deepcopy(made()), **change}, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    opened = BROWSER["Browser"](chromium, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (390, "screen"), (740, "print")])
def test_nothing_of_the_page_sticks_out_sideways(browser: Any, width: int, media: str, tmp_path: Path) -> None:
    browser.open(render(made(upside_down, tuple(TABLES), name="x" * 90), tmp_path / "page.html"), width, media=media)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    scroll_width, _, found = json.loads(browser.evaluate(BROWSER["STICKS_OUT"]))
    assert scroll_width <= width and found == []
    assert browser.said("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []
    requests = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(request: Any, console: Any) -> Any:
        console.run_folder = tmp_path
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "bench", stop)
    assert cli.main(["guidelines", "--experiment", "g1"]) == 130
    assert f"go on with: handset guidelines --resume {tmp_path}\n" in capsys.readouterr().err


def test_a_device_that_is_lost_says_how_this_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(request: Any, console: Any) -> Any:
        console.run_folder = tmp_path
        raise DeviceLost("the link was lost", try_=f"plug it in, then handset bench --resume {tmp_path}")

    monkeypatch.setattr(measure, "bench", lost)
    assert cli.main(["guidelines", "--experiment", "g1,table8"]) == 3
    assert f"plug it in, then handset guidelines --resume {tmp_path}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--experiment", "g1,g5"), "'g5' is not one of g1, g2, g3, g4, table8, all"),
        (("--experiment", ","), "',' is not one of g1"),
        (("--experiment", "g1", "mobilenet_v2"), "mobilenet_v2 was named too"),
        (("--experiment", "g1", "--lut", "t.parquet"), "--lut is not for --experiment"),
        (("--experiment", "g1", "--fail-on", "g1"), "--fail-on is not for --experiment"),
        (("--experiment", "g1", "--runtime", ","), "--runtime ',' names nothing"),
        (("--experiment", "g1", "--runtime", "ncnn"), "there is no runtime 'ncnn'"),
        (("--experiment", "g1", "--device", "nowhere"), "nowhere"),
        (("--experiment", "g1", "--resume", "run"), "--resume goes on with what that run was asked"),
        (("--experiment", "g1", "--budget", "0"), "0 seconds"),
        (("--experiment", "g1", "--json", "absent/x.json"), "absent/x.json"),
        (("--resume", "absent"), "absent is no run"),
        (("--device", "host", "mobilenet_v2"), "--device is only for --experiment"),
        ((), "no network was named"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(["guidelines", *words])
    except SystemExit as error:
        status = int(error.code or 0)
    err = capsys.readouterr().err
    assert status in (1, 2, 3) and message in err and err.startswith("handset: ") and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == []


def test_all_stands_for_every_table_in_the_papers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(asked: Any, console: Any) -> Any:
        seen.append(asked.tables)
        raise UsageError("enough")

    monkeypatch.setattr(measure, "experiment", note)
    for words in ("all", "G4,g1"):
        assert cli.main(["guidelines", "--experiment", words]) == 2
    assert seen == [tuple(TABLES), ("g1", "g4")]
