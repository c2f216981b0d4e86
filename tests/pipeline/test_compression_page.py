"""The page of a compression: what it finds, its numbers by hand, what it leaves out, and how it looks in a browser."""

from __future__ import annotations

import copy
import json
import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import plots
from pipeline.compression.finding import points_text, sentences
from pipeline.compression.page import page, render
from pipeline.compression.tables import MOST_LAYERS
from pipeline.compression.views import MOST_POINTS, read
from pipeline.errors import UsageError
from pipeline.report.reader import Node

SAMPLE = runpy.run_path(str(Path(__file__).with_name("compression_sample.py")))
BROWSER = runpy.run_path(str(Path(__file__).with_name("test_report_browser.py")))
Document = dict[str, Any]


def point(method: str, budget: str, params: float, top1: float | None, *ms: float, **more: Any) -> Document:
    """Measured with ±1 %, in a runtime `a`, then `b`; `top1` is after fine-tuning where there is a method."""
    measured = [
        {"runtime": runtime, "failed": "", "latency_ms": one, "interval_ms": [0.99 * one, 1.01 * one], "stable": True,
         "reasons": []}
        for runtime, one in zip("ab", ms, strict=False)
    ]  # fmt: skip
    known = {"before": top1 - 0.05 if method else top1, "after": top1 if method else None} if top1 is not None else None
    made = {"method": method, "budget": budget, "seed": 0, "round": 0, "params": params, "macs": 10 * params}
    return {**made, "top1": known, "measured": measured, "layers": [], **more}


def document(*points: Document, **more: Any) -> Document:
    made: Document = copy.deepcopy(SAMPLE["sample"]())
    return {**made, "runtimes": [{"name": "a"}, {"name": "b"}], "points": list(points), "published": [], **more}


def said(*points: Document) -> list[str]:
    return sentences(read(Node(document(*points))))


OWN = point("", "", 1000, 0.90, 2.0, 4.0)


def test_the_fastest_that_loses_under_a_point_is_the_headline_and_others_are_told() -> None:
    assert said(
        OWN,
        point("x", "75%", 750, 0.899, 1.6, 2.0),
        point("x", "50%", 500, 0.894, 1.5, 3.95),
        point("x", "25%", 250, 0.889, 1.0, 1.0),  # loses 1.1 points
        point("y", "40%", 400, 0.902, 2.4, 4.2),
    ) == [
        "x at 50 %: −0.6 points, 50 % fewer parameters, 1.3x faster in a, no faster in b",
        "The fastest in b is x at 75 %: −0.1 points, 25 % fewer parameters, 1.2x faster in a, 2.0x faster in b",
        "The smallest is y at 40 %: +0.2 points, 60 % fewer parameters, 1.2x slower in a, 5.0 % slower in b",
    ]


def test_a_comparison_in_which_everything_loses_says_so() -> None:
    assert said(OWN, point("x", "25%", 250, 0.85, 1.0), point("x", "50%", 500, 0.89, 1.8)) == [
        "Nothing loses under 1 point; the nearest is x at 50 %: −1.0 points, 50 % fewer parameters, 1.1x faster in a"
    ]


def test_without_accuracies_nothing_is_said_of_them() -> None:
    assert said(point("", "", 1000, None, 2.0), point("x", "25%", 250, None, 1.0), point("x", "9%", 90, None, 1.5)) == [
        "Without accuracies, the fastest in a is x at 25 %: 75 % fewer parameters, 2.0x faster in a",
        "The smallest is x at 9 %: 91 % fewer parameters, 1.3x faster in a",
    ]
    assert said(point("", "", 1000, None), point("x", "", 1200, None)) == [
        "Without accuracies, the smallest is x: 20 % more parameters"
    ]
    assert said(OWN) == ["resnet20 alone: nothing was compressed"]


def test_seeds_are_one_row_with_their_median_and_rounds_are_not() -> None:
    seeds = [
        point("x", "50%", 500, top1, ms, seed=seed)
        for seed, (top1, ms) in enumerate([(0.89, 1.0), (0.88, 1.3), (0.80, 1.1)])
    ]
    rounds = [point("y", "50%", params, 0.9, 1.0, round=number) for number, params in ((1, 700), (2, 500))]
    run = read(Node(document(OWN, *rounds, *seeds)))
    assert [group.label for group in run.groups] == ["y at 50 %, round 1", "y at 50 %, round 2", "x at 50 %"]
    last = run.groups[-1]
    assert run.change(last) == pytest.approx(-2.0)
    assert last.latency("a") == pytest.approx((1.1, 0.99, 1.313))
    assert last.latency("b") is None
    text = page(document(OWN, *seeds))
    assert '<b>88.0 %</b> <span class="soft">80.0 – 89.0</span>' in text
    assert '<b>1.10 ms</b> <span class="soft">1.82x</span>' in text


def test_a_speed_up_within_the_intervals_is_none() -> None:
    text = page(document(OWN, point("x", "50%", 500, 0.9, 1.97, 1.0)))
    assert '<span class="soft">≈ 1.02x</span>' in text and '<span class="soft">4.00x</span>' in text
    assert "no faster in a, 4.0x faster in b" in text


@pytest.mark.parametrize(("change", "text"), [(-0.04, "0.0"), (0.04, "0.0"), (-10.0, "−10.0"), (0.3, "+0.3")])
def test_points(change: float, text: str) -> None:
    assert points_text(change) == text


def test_the_table_has_counts_accuracies_and_predictions() -> None:
    text = page(SAMPLE["sample"]())
    row = re.search(r"alds</bdi></th><td><bdi>25 %</bdi></td>(.*?)</tr>", text)
    assert row is not None
    assert re.findall(r"<b>([^<]*)</b>", row[1]) == [
        "3", "68.1 k", "13.5 M", "89.9 %", "92.0 %", "−0.5", "1.34 ms", "0.885 ms", "0.902 ms",
    ]  # fmt: skip
    own = re.search(r"<td><bdi>uncompressed</bdi></td>(.*?)</tr>", text)
    assert own is not None  # its accuracy stands in the column that the others are compared in
    assert re.findall(r"<b>([^<]*)</b>", own[1])[3:6] == ["", "92.5 %", ""] and "soft" not in own[1]
    assert "−75 %" in row[1] and "97 % of it from measured kernels" in row[1]
    for header in ("Seeds", "Top-1 before", "after fine-tuning", "Predicted, litert"):
        assert f"<bdi>{header}</bdi></th>" in text
    assert "±0.26 points is the standard error" in text  # (0.925 * 0.075 / 10000) ** 0.5


def test_columns_and_plots_without_a_value_are_left_out() -> None:
    whole, text = page(SAMPLE["sample"]()), page(SAMPLE["bare"]())
    for words in (
        "MACs</bdi></th>",
        "after fine-tuning</bdi>",
        "Change</bdi>",
        "Predicted",
        'id="plots"',
        'id="published"',
    ):
        assert words in whole and words not in text
    assert "<bdi>68.1 k" not in text and "68.1 k" in text


def charts(*points: Document, **more: Any) -> dict[str, plots.Plot]:
    return {plot.what: plot for plot in plots.plots(read(Node(document(*points, **more))))}


def test_a_plot_for_each_count_and_runtime_with_marks_for_seeds_medians_and_lines() -> None:
    seeds = [point("x", "50%", 500, 0.89, 1.0, seed=seed) for seed in range(3)]
    found = charts(OWN, *seeds, point("x", "25%", 250, 0.85, 0.7), point("y", "50%", 500, 0.88, 1.2))
    assert list(found) == ["parameters", "MACs", "latency in a"]
    for plot in found.values():
        assert plot.chart.count('class="r0 seed"') == 3
        assert plot.chart.count('class="joined p0"') == plot.chart.count('class="joined p1"') == 1
        assert len(re.findall(r'<path [^>]*class="r0"', plot.chart)) == 2
        assert plot.chart.count(">x</text>") == plot.chart.count(">uncompressed</text>") == 1
    assert "x at 50 %, median of 3 seeds: 500 parameters, top-1 89.0 %" in found["parameters"].chart
    assert "y at 50 %: 1.20 ms, top-1 88.0 %" in found["latency in a"].chart
    assert found["latency in a"].chart.count('class="reach r0 seed"') == 3 and "reach" not in found["MACs"].chart
    assert found["latency in a"].chart.count('class="reach r1"') == 1


def test_predictions_are_drawn_where_nothing_was_measured() -> None:
    own, other = (point(m, "", 9, 0.9, predicted_ms=ms) for m, ms in (("", 2.0), ("x", 1.0)))
    assert "predicted latency" in charts(own, other)
    assert "predicted latency" not in charts(OWN, point("x", "", 9, 0.9, 1.0, predicted_ms=1.0))


def test_what_was_published_is_hollow_and_relative_to_this_network() -> None:
    one = {"method": "X", "network": "resnet20", "delta_top1": -0.5, "params_removed": 0.75, "macs_removed": None}
    published = [one, {**one, "method": "Z", "network": "vgg", "params_removed": 0.4}]
    found = charts(OWN, point("x", "50%", 500, 0.89), published=published)
    chart = found["parameters"].chart
    assert "published: X of resnet20: 250 parameters, top-1 89.5 %" in chart
    assert 'class="hollow p0"' in chart and ">Z, vgg</text>" in chart  # X is drawn as x is
    assert "hollow" not in found["MACs"].chart
    text = page(document(OWN, point("x", "50%", 500, 0.89), published=published))
    assert re.search(r"<bdi>vgg</bdi></td><td class=\"num\">−0.50</td><td class=\"num\">40.0 %</td><td class", text)
    assert "not measured here" in text


def test_a_network_that_fell_to_chance_does_not_flatten_the_others() -> None:
    found = charts(OWN, *(point("x", f"{n}%", 100 * n, 0.9 - 0.01 * n) for n in (1, 2, 3)), point("y", "9%", 90, 0.1))
    assert found["parameters"].note == "1 mark lower than the axis, at its end"
    assert ">80 %</text>" in found["parameters"].chart and ">70 %</text>" not in found["parameters"].chart
    assert charts(OWN, point("x", "9%", 90, 0.1))["parameters"].note == ""


def test_failures_and_unstable_times_are_told() -> None:
    wrong = point("x", "50%", 500, 0.9, 1.0, 1.0)
    wrong["measured"][0] |= {"stable": False, "reasons": ["too <b>noisy"]}
    wrong["measured"][1] = {"runtime": "b", "failed": "it fell over"}
    text = page(document(OWN, wrong))
    assert "x at 50 %, seed 0 in a</bdi></b>: <bdi>not stable: too &lt;b&gt;noisy</bdi>" in text
    assert "x at 50 %, seed 0 in b</bdi></b>: <bdi>failed: it fell over</bdi>" in text
    assert text.count('<b class="bad">1.00 ms</b>') == text.count('<b class="bad">failed</b>') == 1
    assert "Failed or not stable" not in page(document(OWN))


def test_each_point_has_its_layers_and_what_was_left_alone() -> None:
    text = page(SAMPLE["sample"]())
    assert text.count("<details><summary><b><bdi>") == 27
    first = text[text.index("alds at 50 %, seed 0</bdi>") :].split("</details>")[0]
    assert first.count('scope="row"') == 18 and "artifacts/resnet20_alds_50_s0.pt2" in first
    assert "2.30 k → 1.12 k" in first and "94.4 µs → 63.7 µs" in first and "loss 1.2 to 0.0121 in 10 epochs" in first
    assert "98.3 µs → 71.7 µs" in first and first.count("µs → ") == 2 * 18  # predicted, and measured in litert
    assert '<th scope="col" class="num">litert</th></tr>' in first  # no column for a runtime without any time
    assert '<span class="mono"><bdi>fc</bdi></span>: <bdi>its rank would have to be full</bdi>' in first
    long = point("x", "50%", 500, 0.9)
    long["layers"] = [{"layer": f"l{n}", "ranks": [1]} for n in range(MOST_LAYERS + 7)]
    assert "7 more are in the document." in page(document(OWN, long))


def test_a_simulated_device_says_so() -> None:
    made = SAMPLE["sample"]()
    assert "SIMULATED" not in page(made)
    made["device"]["simulated"] = True
    assert "<b>SIMULATED</b>" in page(made)


Change = Callable[[Document], object]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda made: made.update(kind="bench"), "kind"),
        (lambda made: made.update(schema_version=99), "schema_version"),
        (lambda made: made.update(points=[]), "points"),
        (lambda made: made["points"].pop(0), "begins with the uncompressed network"),
        (lambda made: made.update(points=[{}] * (MOST_POINTS + 1)), f"a list of at most {MOST_POINTS}"),
        (lambda made: made["points"][3].update(params=None), r"points\[3\].params"),
        (lambda made: made["points"][3].update(params=1e300), r"points\[3\].params"),
        (lambda made: made["points"][3]["top1"].update(after=87.4), r"points\[3\].top1.after"),
        (lambda made: made["points"][3]["measured"][1].update(runtime="x"), r"measured\[1\].runtime"),
        (lambda made: made["points"][3]["measured"][1].update(latency_ms=0), r"measured\[1\].latency_ms"),
        (lambda made: made["published"][0].update(params_removed=74.9), r"published\[0\].params_removed"),
        (lambda made: made["points"][3]["layers"][2].update(ranks=["7"]), r"points\[3\].layers\[2\].ranks\[0\]"),
        (lambda made: made["points"][3]["layers"][2]["measured"][0].update(ms_after="1"), r"measured\[0\].ms_after"),
        (lambda made: made.update(device={"name": "x"}), "device.simulated"),
    ],
)
def test_a_wrong_document_gets_no_page(change: Change, place: str, tmp_path: Path) -> None:
    made = SAMPLE["sample"]()
    change(made)
    with pytest.raises(UsageError, match=rf"the result document.*{place}"):
        render(made, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_hostile_names_are_escaped() -> None:
    text = page(SAMPLE["hostile"]())
    assert (
        "<script" not in text
        and "<img" not in text
        and "\u202e" not in text
        and "49" not in re.findall(r">(\d+)<", text)
    )
    assert "&lt;script&gt;alert" in text and "{{ 7*7 }}" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    opened = BROWSER["Browser"](chromium, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (390, "screen"), (740, "print")])
@pytest.mark.parametrize("name", ["sample", "hostile"])
def test_nothing_of_the_page_sticks_out_sideways(
    browser: Any, name: str, width: int, media: str, tmp_path: Path
) -> None:
    made = SAMPLE[name]()
    made["points"] = [
        made["points"][0],
        *made["points"][1::7],
    ]  # of each method one or two: thousands of rows take seconds
    browser.open(render(made, tmp_path / "page.html"), width, media=media)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    scroll_width, _, found = json.loads(browser.evaluate(BROWSER["STICKS_OUT"]))
    assert scroll_width <= width and found == []
    assert browser.said("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []
    requests = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []


def test_no_name_in_a_plot_covers_another_or_a_mark(browser: Any, tmp_path: Path) -> None:
    """Boxes as the browser has them: the widths of names are only estimated where they are placed."""
    browser.open(render(SAMPLE["sample"](), tmp_path / "page.html"), 1280)
    covered = """(() => [...document.querySelectorAll('svg.compared')].flatMap(svg => {
      const box = e => e.getBoundingClientRect();
      const names = [...svg.querySelectorAll('text.halo')];
      const others = [...svg.querySelectorAll('g > path'), ...names];
      const meets = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4;
      return names.flatMap(n => others.filter(o => o !== n && meets(box(n), box(o))).map(o => n.textContent)); }))()"""
    assert browser.evaluate("document.querySelectorAll('svg.compared text.halo').length") >= 16
    assert browser.evaluate(covered) == []


def test_names_and_marks_are_legible_in_both_schemes(browser: Any, tmp_path: Path) -> None:
    """WCAG contrast to the paper: 4.5 for names in the colour of their method, 3 for all six marks."""
    made = SAMPLE["sample"]()
    made["points"] = [OWN, *(point(f"m{n}", "50%", 100 * n + 99, 0.90 - n / 50) for n in range(6))]
    made["runtimes"] = [{"name": "a"}, {"name": "b"}]
    path = render(made, tmp_path / "page.html")
    ratio = """(() => {
      const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = colour => { const [r, g, b] = colour.match(/[0-9.]+/g).map(v => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b; };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return [0, 1, 2, 3, 4, 5].map(n => { const e = document.querySelector(`svg.compared text.name-r${n}`);
        const ink = light(getComputedStyle(e).fill);
        return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05); }); })()"""
    for scheme in ("light", "dark"):
        browser.open(path, 1280, scheme)
        found = browser.evaluate(ratio)
        assert len(found) == 6 and min(found) >= 4.5, found
