"""Drawings: what is drawn adds up to what was measured, and every text in it is escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import charts, svg, timeline, waterfall
from pipeline.report.kinds import KINDS, detail, kind_of, shapes
from pipeline.report.scales import Scale
from pipeline.report.timeline import Timeline
from pipeline.report.views import Estimate, Kernel

BAD = "</title><script>\"'&"


def kernel(index: int, ms: float, op: str = "conv2d", key: str | None = None) -> Kernel:
    return Kernel(index, f"{BAD}{index}", op, BAD, key, Estimate(ms, ms, ms), None, 0.1, None)


def elements(markup: str, name: str, class_: str = "") -> list[ElementTree.Element]:
    """Parsing as XML proves that the drawing is well formed: names between quotes and brackets and all."""
    root = ElementTree.fromstring(f"<root>{markup}</root>")
    return [found for found in root.iter(name) if class_ in (found.get("class") or "").split() or not class_]


def share(element: ElementTree.Element, attribute: str) -> float:
    value = element.get(attribute, "")
    assert value.endswith("%")
    return float(value[:-1])


times = st.lists(st.floats(1e-4, 10), min_size=1, max_size=120)


@settings(deadline=None)
@given(times)
def test_the_widths_of_a_waterfall_fill_its_axis_and_touch(ms: list[float]) -> None:
    kernels = [kernel(i, value) for i, value in enumerate(ms)]
    bars = elements(waterfall.waterfall(waterfall.rows(kernels, ms), BAD), "rect", "bar")
    assert sum(share(bar, "width") for bar in bars) == pytest.approx(100, abs=0.001 * len(bars))
    for before, after in pairwise(bars):
        assert share(after, "x") == pytest.approx(share(before, "x") + share(before, "width"), abs=0.002)


@settings(deadline=None)
@given(times)
def test_rows_keep_every_kernel_and_the_order(ms: list[float]) -> None:
    found = waterfall.rows([kernel(i, value) for i, value in enumerate(ms)], ms)
    whole = "\n".join(piece.whole for row in found for piece in row.pieces)
    assert [int(n) for n in re.findall(re.escape(BAD) + r"(\d+)", whole)] == list(range(len(ms)))
    assert sum(row.ms for row in found) == pytest.approx(sum(ms))


def test_only_small_kernels_are_folded() -> None:
    ms = [1.0, 0.001, 0.001, 0.001, 1.0, 0.001, 1.0]
    found = waterfall.rows([kernel(i, value) for i, value in enumerate(ms)], ms)
    assert [row.name for row in found][1] == "other: 3 small kernels"
    assert [len(row.pieces) for row in found] == [1, 1, 2, 1]
    assert found[2].ms == pytest.approx(1.001)


def test_every_kernel_of_equal_size_has_its_row() -> None:
    assert len(waterfall.rows([kernel(i, 1.0) for i in range(100)], [1.0] * 100)) == 100


def test_words_stand_on_the_side_that_has_room() -> None:
    ms = [1.0] * 4
    drawn = waterfall.waterfall(waterfall.rows([kernel(i, 1.0) for i in range(4)], ms), "title")
    assert [text.get("text-anchor") for text in elements(drawn, "text", "words")] == [None, None, "end", "end"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(1e-3, 100), min_size=1))
def test_a_stacked_bar_is_full(by_slug: dict[str, float]) -> None:
    parts = [(KINDS[slug], ms) for slug, ms in by_slug.items()]
    bars = elements(waterfall.stacked(parts, BAD), "rect")
    assert sum(share(bar, "width") for bar in bars) == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize(
    ("op", "key", "slug", "words"),
    [
        ("conv2d", "conv2d[in=1x32x7x7 out=32 k=3x3 s=1x1 g=32]", "depthwise", "depthwise 3×3"),
        ("conv2d", "conv2d[in=1x32x7x7 out=32 k=3x3 s=1x1 g=4]", "grouped", "grouped conv 3×3"),
        ("conv2d", "conv2d[in=1x1x7x7 out=32 k=3x3 s=1x1 g=1]", "dense", "conv 3×3"),
        ("conv2d", "conv2d[in=1x32x7x7 out=32 k=1x1 s=1x1 g=1]", "pointwise", "conv 1×1"),
        ("conv2d", None, "dense", "conv"),
        ("reorder_in", None, "layout", "reorder in"),
        ("strided_slice", None, "layout", "strided slice"),
        ("max_pool", "max_pool[in=1x8x4x4 k=2x2]", "pool", "max pool"),
        ("<script>", "rubbish", "other", "<script>"),
    ],
)
def test_kinds(op: str, key: str | None, slug: str, words: str) -> None:
    assert kind_of(op, key).slug == slug
    assert detail(op, key) == words


def test_shapes_stand_for_the_names_that_a_runtime_does_not_keep() -> None:
    key = "conv2d[in=1x32x7x9 out=64 k=3x3 s=1x1 g=1]"
    assert [shapes(text) for text in (key, "add[in=1x8x4x4 act=none]", "rubbish", None)] == [
        "32×7×9 → 64",
        "8×4×4",
        "",
        "",
    ]
    named, nameless = kernel(1, 1.0, key=key), replace(kernel(2, 1.0, key=key), name=BAD)
    assert [row.name for row in waterfall.rows([named, nameless], [1.0, 1.0])] == [named.name, "32×7×9 → 64"]


def test_a_histogram_draws_both_distributions_and_counts_what_is_beyond() -> None:
    scale = Scale(0, 60)
    drawn = charts.histogram(scale, [1, 1, 1, 30, 99, 98], [5, 5], (1, 5), BAD)
    plain, corrected = elements(drawn, "rect", "plain"), elements(drawn, "rect", "corrected")
    heights = [float(bar.get("height", "")) for bar in plain]
    assert heights == pytest.approx([max(heights), max(heights) / 3], rel=1e-3)
    assert len(corrected) == 1
    assert float(corrected[0].get("height", "")) == pytest.approx(max(heights) * 2 / 3, rel=1e-3)
    assert "2 beyond" in drawn
    assert len(elements(drawn, "line", "median-plain") + elements(drawn, "line", "median-corrected")) == 2


def test_a_histogram_without_correction_has_one_median() -> None:
    drawn = charts.histogram(Scale(0, 60), [1.0, 2.0], [], (1.5, None), "title")
    assert elements(drawn, "line", "median-corrected") == []
    assert elements(drawn, "rect", "corrected") == []


@settings(deadline=None)
@given(st.lists(st.floats(1, 100), min_size=1))
def test_the_body_of_a_distribution_is_most_of_it(values: list[float]) -> None:
    found = charts.body(values)
    assert len(found) >= int(0.7 * len(values))
    first = len(values) // 200
    assert found == sorted(values)[first : first + len(found)]


def test_a_long_tail_is_left_out() -> None:
    found = charts.body([10 + i / 100 for i in range(190)] + [50.0] * 9 + [1.0])
    assert 10 <= min(found) <= max(found) < 12


def test_launches_stand_side_by_side_without_the_pause() -> None:
    line = Timeline([1, 2, 3, 4], [0, 10, 1_000_000, 1_000_010], [0, 0, 1, 1], [1] * 4, [True] * 4)
    places, borders = timeline.places(line)
    assert places == sorted(places)
    assert borders == pytest.approx([500])
    assert places[1] - places[0] == pytest.approx(places[3] - places[2])
    assert 0 < places[0] < places[3] < 1000


def test_a_timeline_parts_warmups_samples_and_dropped_ones() -> None:
    line = Timeline([1.0, 1.1, 5.0], [0, 1, 2], [0, 0, 0], [1, 1, 1], [False, True, True], warmup=[2.0, 1.0])
    drawn = timeline.timeline(line, "ms", BAD)
    dots = {path.get("class"): path.get("d", "").count("M") for path in elements(drawn, "path")}
    assert dots == {"dots warm": 2, "dots dropped": 1, "dots sample": 2}


def test_a_long_timeline_is_thinned_and_says_so() -> None:
    n = timeline.MOST_DOTS * 3
    line = Timeline([1.0] * n, range(n), [0] * n, [1] * n, [True] * n, warmup=[1.0] * n)
    drawn = timeline.timeline(line, "ms", "title")
    dots = {path.get("class"): path.get("d", "").count("M") for path in elements(drawn, "path")}
    assert dots["dots sample"] == timeline.MOST_DOTS
    assert 0 < dots["dots warm"] <= timeline.MOST_WARM_DOTS
    assert "one sample in 3 is drawn" in drawn


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(0, 1e12)), max_size=40))
def test_any_series_stands_inside_in_its_order(found: list[tuple[int, int, float]]) -> None:
    """Also where starts jump back, as in a damaged document."""
    launch, block, start = ([row[i] for row in sorted(found)] for i in range(3))
    xs, borders = timeline.places(Timeline(start, start, launch, block, [True] * len(start)))
    assert xs == sorted(xs)
    assert all(0 <= x <= 1000 for x in (*xs, *borders))
    assert len(borders) == max(0, len(set(launch)) - 1)


def test_pauses_between_blocks_are_left_out() -> None:
    line = Timeline([1] * 4, [0, 10, 9e9, 9e9 + 10], [0] * 4, [1, 1, 2, 2], [True] * 4)
    xs, borders = timeline.places(line)
    assert borders == []
    assert xs[1] - xs[0] == pytest.approx(xs[3] - xs[2])
    assert 0 < xs[2] - xs[1] < xs[1] - xs[0]


def test_a_whisker_reaches_from_end_to_end_and_has_a_title() -> None:
    drawn = charts.whisker(Scale(0, 10), Estimate(5, 4, 7), Estimate(6, 5, 7), 0, BAD)
    line = elements(drawn, "line", "whisker")[0]
    assert (share(line, "x1"), share(line, "x2")) == (40, 70)
    assert [share(circle, "cx") for circle in elements(drawn, "circle")] == [60, 50]
    assert elements(drawn, "title")[0].text == BAD


@pytest.mark.parametrize("shape", range(5))
def test_markers_differ_in_shape_not_only_in_colour(shape: int) -> None:
    drawn = {charts.marker(50, 10, other, "x") for other in range(4)}
    assert len(drawn) == 4
    assert charts.marker(50, 10, shape, "x") in drawn


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")))
def test_tags_escape_text_and_attributes(text: str) -> None:
    found = elements(svg.tag("text", text, class_="a", data_x=text), "text")[0]
    assert found.text in {text, None if text == "" else text}
    assert found.get("data-x") == text


def test_coordinates_are_short() -> None:
    assert [svg.coordinate(value) for value in (1.0, 0.12345, -0.0001, 100)] == ["1", "0.123", "0", "100"]
