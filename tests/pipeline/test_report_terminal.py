"""The short form: it fits, it is plain where nobody sees colours, and it cannot be attacked with names."""

from __future__ import annotations

import io
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from pipeline.report import terminal

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))


def shown(result: dict[str, Any], width: int | None = None, page: str = "reports/x/index.html") -> list[str]:
    out = io.StringIO()
    terminal(result, page, file=out, width=width)
    return out.getvalue().splitlines()


def rows(lines: list[str]) -> list[str]:
    rule = next(i for i, line in enumerate(lines) if set(line) == {"─"})
    return lines[rule - 1 : rule] + lines[rule + 1 : rule + 9]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", ["sample", "phone", "hostile"])
def test_it_fits_without_control_characters(width: int, kind: str) -> None:
    lines = shown(SAMPLE[kind](), width)
    assert max(cell_len(line) for line in lines) <= width
    assert re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", "".join(lines)) is None
    assert not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("kind", ["sample", "hostile"])
def test_no_number_is_cut_at_80_columns(kind: str) -> None:
    header, *body = rows(shown(SAMPLE[kind](), 80))
    assert header.split() == ["network", "runtime", "median", "corrected", "±", "kernels", "top1", "verdict"]
    for line in body:
        assert line.endswith((" stable", " unstable", " failed", " mismatch"))
        if not line.endswith("failed"):
            assert len(re.findall(r"[\d.]+ (?:ms|µs)", line)) == 3
            assert re.search(r" \d+\.\d % ", line)


def test_the_wide_table_has_the_interval() -> None:
    header, first, *_ = rows(shown(SAMPLE["sample"](), 120))
    assert "interval" in header.split()
    assert re.search(r"mobilenet_v2 +onnxruntime +[\d.]+ ms +[\d.]+ ms +0\.4 % +[\d.]+ – [\d.]+ +[\d.]+ ms", first)


def test_names_are_whole_where_they_fit() -> None:
    _, *body = rows(shown(SAMPLE["sample"](), 80))
    assert [line.split()[:2] for line in body[:2]] == [["mobilenet_v2", "onnxruntime"], ["mobilenet_v2", "litert"]]
    assert body[-1].split()[:2] == ["digits_cnn_tucker2", "litert"]


@pytest.mark.parametrize(("extra", "titles"), [(0, True), (1, False), (8, False), (60, True)])
def test_the_kernels_sum_goes_where_that_makes_names_whole(extra: int, titles: bool) -> None:
    result = SAMPLE["sample"]()
    for one in (*result["networks"], *result["profiles"]):
        name = "network" if "runtime" in one else "name"
        one[name] = one[name].replace("tucker2", "tucker2" + "x" * extra)
    header, *body = rows(shown(result, 80))
    assert ("kernels" in header) is titles
    assert ("tucker2" + "x" * extra + " " in body[-1]) is (extra < 20)


def test_of_many_unstable_ones_the_widest_are_told() -> None:
    result = SAMPLE["sample"]()
    first = result["profiles"][0]
    first["verdict"] |= {"stable": False, "reasons": ["noise"]}
    for number in range(1, 10):
        width = 0.01 * number
        latency = {**first["latency_ms"], "corrected": {"median": 1, "interval": [1 - width, 1 + width], "confidence": 0.95}}
        result["profiles"].append({**first, "runtime": f"r{number}", "latency_ms": latency})
    tail = shown(result, 120)
    told = [line.split()[3].rstrip(":") for line in tail if line.startswith("unstable  ")]
    assert told == ["litert", *(f"r{number}" for number in range(3, 10))]
    assert any(line.strip() == "3 more are not stable, see the page" for line in tail)


def test_troubles_next_and_page_follow_the_table() -> None:
    lines = shown(SAMPLE["sample"](), 120)
    tail = lines[lines.index(rows(lines)[-1]) + 1 :]
    assert tail[0].startswith("unstable  mobilenet_v2 in litert: ±3.1 %")
    assert any(line.startswith("failed    resnet20 in litert: ") for line in tail)
    assert tail[-4:] == [
        "next      handset bench mobilenet_v2 --device host --budget 12",
        "tables    table-onnxruntime-float32-t1.parquet, table-litert-float32-t1.parquet",
        "run       reports/x",
        "page      reports/x/index.html",
    ]


def test_a_long_path_is_not_broken() -> None:
    path = "reports/" + "very-long-name/" * 12 + "index.html"
    assert shown(SAMPLE["sample"](), 80, path)[-1] == f"page      {path}"


def test_accuracy_has_a_column_only_where_there_is_one() -> None:
    result = SAMPLE["sample"]()
    for network in result["networks"]:
        network["accuracy"] = None
    assert rows(shown(result, 80))[0].split()[-2:] == ["kernels", "verdict"]


@pytest.mark.parametrize(("metric", "title"), [("mAP", "mAP"), ("median", "accuracy"), ("正解率", "accuracy")])
def test_accuracy_is_called_by_its_metric_where_that_is_a_short_word(metric: str, title: str) -> None:
    result = SAMPLE["sample"]()
    for network in result["networks"]:
        if network["accuracy"]:
            network["accuracy"]["metric"] = metric
    assert rows(shown(result, 80))[0].split()[-2:] == [title, "verdict"]


def test_banners() -> None:
    result = SAMPLE["sample"]()
    assert "SIMULATED" not in "".join(shown(result))
    result["device"]["simulated"], result["complete"] = True, False
    lines = shown(result)
    assert lines[0].startswith("SIMULATED")
    assert lines[1].startswith("INCOMPLETE")


def test_an_empty_result_is_a_sentence() -> None:
    lines = shown(SAMPLE["sample"]() | {"networks": [], "profiles": [], "tables": {}})
    assert lines == ["No network was measured.", "run       reports/x", "page      reports/x/index.html"]


def test_without_a_terminal_it_is_plain_and_80_wide() -> None:
    assert shown(SAMPLE["sample"]()) == shown(SAMPLE["sample"](), 80)


def test_an_output_that_knows_only_ascii_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict", write_through=True))
    terminal(SAMPLE["sample"]())
    text = raw.getvalue().decode("ascii")
    assert "(~0.4 %)" in text
    assert "?" not in text


def test_a_colour_terminal_gets_colours_but_none_from_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    terminal(SAMPLE["hostile"](), file=out, width=80)
    text = out.getvalue()
    assert "\x1b[1;31mfailed" in text
    assert "\x1b]" not in text
    assert "\x1b[31mred" not in text
    assert "[bold]markup[/bold]" in re.sub(r"\x1b\[[0-9;]*m", "", text)
