"""The page as text: all sections with their numbers, everything escaped, nothing hidden, written whole."""

from __future__ import annotations

import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from pipeline.errors import StorageError, UsageError
from pipeline.report import page as page_module
from pipeline.report import render

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
SPEED = ("latency", "counts", "compression", "samples", "kernels", "types", "runtimes")
TRUST = ("stability", "parity", "context", "method", "notes", "next")
SECTIONS = [*SPEED, *TRUST]
TABLES = {"table-onnxruntime-float32-t1.parquet", "table-litert-float32-t1.parquet"}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Outline(HTMLParser):
    """Checks that elements nest, and keeps for each section its text, its elements and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.section = ""
        self.text: dict[str, str] = {}
        self.tags: list[tuple[str, str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "section":
            self.section = attributes["id"] or ""
        self.tags.append((self.section, tag, attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((self.section, tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + data

    def count(self, tag: str, section: str = "") -> int:
        return sum(found == tag and section in {"", where} for where, found, _ in self.tags)


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def rendered(result: dict[str, Any], tmp_path: Path) -> str:
    path = render(result, tmp_path / "index.html")
    assert path == tmp_path / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def result() -> dict[str, Any]:
    found: dict[str, Any] = SAMPLE["sample"]()
    return found


@pytest.fixture
def page(result: dict[str, Any], tmp_path: Path) -> Outline:
    return outline(rendered(result, tmp_path))


def test_sections_stand_in_order(page: Outline) -> None:
    assert [attributes["id"] for _, tag, attributes in page.tags if tag == "section"] == SECTIONS


def test_each_link_has_its_target(page: Outline) -> None:
    links = {attributes["href"] for _, tag, attributes in page.tags if tag == "a"}
    assert links == {f"#{name}" for name in SECTIONS} | TABLES


@pytest.mark.parametrize(
    ("section", "pattern"),
    [
        ("", r"mobilenet_v2 takes [\d.]+ ms \(±0\.4 %\) in onnxruntime, 1\.\dx faster than in litert"),
        ("latency", r"[\d.]+ ms\s*±0\.4 %\s*[\d.]+ – [\d.]+"),
        ("latency", r"failed:\s*litert: op STABLEHLO_COMPOSITE of node 17"),
        ("compression", r"digits_cnn → digits_cnn_tucker2\s*tucker2"),
        ("compression", r"\d\.\d\dx\s*\d\.\d\d – \d\.\d\d"),
        ("compression", r"parameters\s*98\.4 k\s*61\.0 k\s*−38 %"),
        ("compression", r"top1, litert\s*97\.8 %\s*96\.7 %\s*−1\.11 points"),
        ("compression", r"features\.3\s*20, 12\s*18432\s*3824\s*0\.213"),
        ("samples", r"300 samples in 3 launches, 2\d\d of them undisturbed; 12 more dropped as .*; 14 warm-ups"),
        ("kernels", r"mobilenet_v2 in onnxruntime 66 kernels, together [\d.]+ ms, noise-corrected medians"),
        ("types", r"conv 1×1 \d\d % [\d.]+ ms"),
        ("runtimes", r"data layout.*none\s*only in onnxruntime"),
        ("stability", r"▲ not stable ±3\.1 % \(asked ±1\.0 %\)"),
        ("stability", r"noise-corrected [\d.]+ ms ±3\.1 %"),
        ("stability", r"launches [\d.]{5}, [\d.]{5}, [\d.]{5} ms"),
        (
            "stability",
            r"canary exponent 0\.40, reference 0\.182 ms \(kept from an earlier run\), in this run 0\.185 ms",
        ),
        ("stability", r"more than 1\.50 times its reference"),
        ("stability", r"clock 2\.45 – 2\.60 GHz ran on core 1"),
        ("stability", r"the budget of 20 s ended first"),
        ("stability", r"disturbed \d+ % \([\d.]+ % preempted\)"),
        ("stability", r"✗ failed litert: op STABLEHLO_COMPOSITE"),
        ("parity", r"✓ within\s*2\.4e-06\s*1e-04\s*flower"),
        ("parity", r"97\.8 %\s*97\.8 %\s*same\s*top1, digits, 360 test images"),
        ("context", r"AMD EPYC 9B14"),
        ("context", r"7\.64 GiB"),
        ("context", r"onnxruntime\s*1\.31\.1\s*a1a1a1a1a1\s*none\s*1\s*0x2"),
        ("context", r"load\s*0\.40 before, 0\.90 after measuring"),
        ("context", r"temperature\s*41\.50 °C after measuring"),
        ("context", r"clock\s*2\.45 – 2\.60 GHz"),
        ("context", r"cpu mask\s*0x2"),
        ("context", r"table, litert\s*table-litert-float32-t1\.parquet"),
        ("context", r"canary\s*stream4M-matmul48x64x192x5-avx2"),
        ("context", r"mobilenet_v2\.onnx\s*torch\.onnx 2\.13\.0 opset 20\s*01010101"),
        ("context", r"handset bench mobilenet_v2 resnet20 digits_cnn digits_cnn_tucker2 --device host"),
        ("method", r"with a 95 % interval, taken with the profiler off"),
        ("method", r"half of it is arithmetic in the first cache, half a read of 4 MB"),
        ("method", r"measuring\s*41\.0\s*68 %\s*exporting.*13\.5\s*22 %\s*1 shorter stage.*between the stages\s*5\.49"),
        ("notes", r"resnet20\.onnxruntime: 2 kernels have no key"),
        ("next", r"handset bench mobilenet_v2 --device host --budget 12"),
    ],
)
def test_numbers_stand_where_they_belong(page: Outline, section: str, pattern: str) -> None:
    text = re.sub(r"\s+", " ", page.text[section])
    assert re.search(pattern, text), text[:2000]


def test_every_kernel_is_in_a_table_with_its_name(result: dict[str, Any], page: Outline) -> None:
    measured = [profile for profile in result["profiles"] if not profile["failed"]]
    rows = sum(len(profile["kernels"]) for profile in measured)
    assert page.count("tr", "kernels") == rows + len(measured)
    for profile in measured:
        assert all(kernel["name"] in page.text["kernels"] for kernel in profile["kernels"])


def test_a_hundred_small_kernels_are_all_in_the_table(result: dict[str, Any], tmp_path: Path) -> None:
    result["profiles"] = result["profiles"][:1]
    kernels = [dict(result["profiles"][0]["kernels"][0], index=i, name=f"kernel{i:03}") for i in range(400)]
    result["profiles"][0]["kernels"] = kernels
    found = outline(rendered(result, tmp_path))
    assert found.count("tr", "kernels") == 401
    assert all(f"kernel{i:03}" in found.text["kernels"] for i in range(400))


def test_every_drawing_has_words_and_every_table_headers(page: Outline) -> None:
    for _, tag, attributes in page.tags:
        if tag == "svg" and "chart" in (attributes.get("class") or "").split():
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
    assert page.count("table") == page.count("thead") == page.count("tbody") > 10
    headers = [attributes for _, tag, attributes in page.tags if tag == "th"]
    assert {attributes.get("scope") for attributes in headers} == {"col", "row"}


def test_nothing_comes_from_elsewhere(page: Outline) -> None:
    tags = {tag for _, tag, _ in page.tags}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "form", "base"})
    policy = next(a["content"] for _, tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    for _, _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")) or attributes[name] in TABLES


def test_only_plain_file_names_become_links(result: dict[str, Any], tmp_path: Path) -> None:
    bad = ["javascript:alert(1)", "//host/x", "../x.parquet", ".hidden", "a b", "x" * 300]
    result["tables"] = {f"runtime{i}": file for i, file in enumerate([*bad, "table.parquet"])}
    found = outline(rendered(result, tmp_path))
    links = {attributes["href"] or "" for where, tag, attributes in found.tags if tag == "a" and where == "context"}
    assert links == {"table.parquet", "x" * 300}
    assert "javascript:alert(1)" in found.text["context"]


def test_why_a_profile_has_no_kernels_is_said(result: dict[str, Any], tmp_path: Path) -> None:
    result["profiles"][0] |= {"kernels": [], "kernels_missing": "the profiler <b>crashed</b>", "kernels_sum_ms": None}
    text = re.sub(r"\s+", " ", outline(rendered(result, tmp_path)).text["kernels"])
    assert "No kernels of mobilenet_v2 in onnxruntime: the profiler <b>crashed</b>" in text
    assert text.count("No kernels of") == 1


def test_a_wholly_disturbed_profile_draws_no_correction(result: dict[str, Any], tmp_path: Path) -> None:
    result["profiles"] = result["profiles"][:1]
    result["profiles"][0] |= {"preempted": [1] * 312, "preempted_share": 1.0, "disturbed_share": 1.0}
    found = outline(rendered(result, tmp_path))
    assert "300 samples in 3 launches, none of them undisturbed" in found.text["samples"]
    assert {"median-plain", "plain"} <= {attributes.get("class") for _, _, attributes in found.tags}
    assert {"median-corrected", "corrected"}.isdisjoint({attributes.get("class") for _, _, attributes in found.tags})


def test_kernels_below_the_clock_are_not_said_to_be_missing(result: dict[str, Any], tmp_path: Path) -> None:
    for kernel in result["profiles"][1]["kernels"]:
        if kernel["op"] == "linear":
            kernel["latency_ms"] = {"median": 0.0, "interval": [0.0, 0.0]}
            kernel["latency_ms"]["corrected"] = dict(kernel["latency_ms"])
    text = {k: re.sub(r"\s+", " ", v) for k, v in outline(rendered(result, tmp_path)).text.items()}
    assert re.search(r"< 1 µs ?faster in litert", text["runtimes"])
    assert "linear 0 % < 1 µs" in text["types"]
    assert "linear (litert)< 1< 1 – < 1< 1" in text["kernels"]


def test_a_large_result_stays_a_small_page(result: dict[str, Any], tmp_path: Path) -> None:
    profile = result["profiles"][0]
    for name in ("samples_ns", "canary_ns", "start_ns", "preempted", "launch", "block", "kept", "warmup_ns"):
        profile[name] = profile[name] * 160
    text = rendered(result | {"profiles": [profile] * 4}, tmp_path)
    assert len(text) < 1_000_000
    assert "one in 34 is drawn over time" in text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    text = rendered(SAMPLE["hostile"](), tmp_path)
    found = outline(text)
    assert {tag for _, tag, _ in found.tags}.isdisjoint({"script", "img", "b2j"})
    assert not any(name.startswith("on") for _, _, attributes in found.tags for name in attributes)
    assert "<script>alert('name')</script>" in found.text["latency"]
    assert "{{ 7*7 }}" in found.text["stability"]
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text) is None


def test_a_long_name_is_short_with_the_whole_in_a_title(tmp_path: Path) -> None:
    found = outline(rendered(SAMPLE["hostile"](), tmp_path))
    whole = SAMPLE["HOSTILE"][2]
    assert any(attributes.get("title") == whole for _, tag, attributes in found.tags if tag == "bdi")
    assert "x" * 200 not in found.text["latency"].replace("failed", "").split("redbell")[0]


def test_a_simulated_device_and_an_incomplete_run_carry_banners(result: dict[str, Any], tmp_path: Path) -> None:
    calm = rendered(result, tmp_path)
    assert "SIMULATED" not in calm
    assert "INCOMPLETE" not in calm
    result["device"]["simulated"], result["complete"] = True, False
    loud = outline(rendered(result, tmp_path))
    assert "SIMULATED" in loud.text[""]
    assert "INCOMPLETE" in loud.text[""]
    assert "simulated" in loud.text["method"]


@pytest.mark.parametrize("keep", ["nothing", "failures", "one kernel", "no canary", "no kernels"])
def test_poor_results_have_a_page_too(result: dict[str, Any], tmp_path: Path, keep: str) -> None:
    profile = result["profiles"][0]
    if keep == "nothing":
        result["profiles"], result["networks"] = [], []
    elif keep == "failures":
        result["profiles"] = [p for p in result["profiles"] if p["failed"]]
    else:
        result["profiles"] = [profile]
        profile["kernels"] = {"one kernel": profile["kernels"][:1], "no kernels": []}.get(keep, profile["kernels"])
    if keep == "no canary":
        result["canary"] = profile["canary"] = profile["latency_ms"]["corrected"] = None
        beside = ("canary_ns", "start_ns", "preempted", "launch", "block", "kept", "warmup_ns", "conditions")
        profile |= {name: [] for name in beside}
    found = outline(rendered(result, tmp_path))
    assert "latency" in found.text
    words = {
        "nothing": ("", "No network was measured."),
        "failures": ("latency", "STABLEHLO_COMPOSITE"),
        "one kernel": ("kernels", "shows this network as one node"),
        "no canary": ("stability", "canary none"),
        "no kernels": ("kernels", "No kernels were measured."),
    }[keep]
    assert words[1] in found.text[words[0]]


def test_templates_are_strict_and_escape_everything() -> None:
    made = page_module.environment()
    with pytest.raises(UndefinedError):
        made.from_string("{{ nobody }}").render()
    assert made.from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"


def test_the_page_is_replaced_whole(result: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "index.html"
    render(result, target)
    before = target.read_text(encoding="utf-8")
    assert sorted(path.name for path in target.parent.iterdir()) == ["index.html"]
    result["schema_version"] = 99
    with pytest.raises(UsageError, match="a newer handset"):
        render(result, target)
    assert target.read_text(encoding="utf-8") == before


def test_a_page_that_cannot_be_written_leaves_nothing(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="try: another folder"):
        render(result, tmp_path / "file" / "index.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(StorageError, match="the page cannot be written to"):
        render(result, tmp_path / "taken.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.html"]


def test_the_same_result_gives_the_same_page(result: dict[str, Any], tmp_path: Path) -> None:
    assert rendered(result, tmp_path) == rendered(SAMPLE["sample"](), tmp_path / "again")
