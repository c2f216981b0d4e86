"""The page of a validation: all its sections, everything escaped, and no claim that the document does not make."""

from __future__ import annotations

import copy
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError, UsageError
from pipeline.report.scales import Scale
from pipeline.report.scatter import PLOT_PX, Dot, errors_scale, scatter
from pipeline.report.validation_page import page, render

MADE = runpy.run_path(str(Path(__file__).with_name("test_validation_judge.py")))
OUTLINE = runpy.run_path(str(Path(__file__).with_name("test_report_page.py")))["outline"]
HOSTILE = '<script>alert("x")</script>\x1b[31m\u202e'


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    found: dict[str, Any] = MADE["document"]()
    return found


@pytest.fixture
def document(made: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(made)


def outline(document: dict[str, Any]) -> Any:
    return OUTLINE(page(document))


def test_the_page_has_all_sections_and_a_square_for_each_way_that_says_something(document: dict[str, Any]) -> None:
    found = outline(document)
    sections = [attributes["id"] for _, tag, attributes in found.tags if tag == "section"]
    assert sections == ["plots", "predictors", "networks", "families", "worst", "left-out", "context", "method"]
    drawn = [attributes for where, tag, attributes in found.tags if tag == "svg" and where == "plots"]
    assert sum("chart" in (attributes.get("class") or "") for attributes in drawn) == 3
    assert "nothing to show" in found.text["plots"]
    assert not any(tag in ("script", "img", "iframe") for _, tag, _ in found.tags)
    assert all(attributes.get("src") is None for _, _, attributes in found.tags)


def test_numbers_stand_where_they_belong(document: dict[str, Any]) -> None:
    found = outline(document)
    assert "3 of 4 networks" in found.text[""] and "75 % within 5 % (scaled), 90 % asked" in found.text[""]
    assert "× 1.000" in found.text["predictors"] and "not judged" in found.text["predictors"]
    assert "net4" in found.text["networks"] and "−33 %" in found.text["networks"]
    assert "not stable" in found.text["networks"]
    assert "odd" in found.text["left-out"] and "why" in found.text["left-out"]
    assert "conv k×k" in found.text["families"] and "conv2d[in=1x3x8x8" in found.text["worst"]
    assert "a note of it" in found.text["method"]


@pytest.mark.parametrize(
    ("change", "banner"),
    [
        (lambda d: d["context"]["differences"].append({"field": "soc", "table": "x", "measured": "y"}), "OTHER CONTEXT"),
        (lambda d: d["networks"][0].update(in_table=True), "NOT HELD OUT"),
        (lambda d: d["context"]["measured"].update(simulated=True), "SIMULATED"),
    ],
)
def test_banners_are_there_when_and_only_when_they_are_true(document: dict[str, Any], change: Any, banner: str) -> None:
    assert banner not in page(document)
    change(document)
    assert banner in page(document)


def test_lists_that_differ_are_shown(document: dict[str, Any]) -> None:
    assert 'id="lists"' not in page(document)
    document["networks"][0]["listed"] = {
        "same": False, "reordered": False, "only_told": {"add[x]": 2}, "only_profile": {}
    }  # fmt: skip
    text = outline(document).text["lists"]
    assert "add[x]" in text and "told alone" in text


def hostile(value: Any) -> Any:
    """The document with every text but those that choose between things made hostile."""
    if isinstance(value, dict):
        kept = ("kind", "name", "family", "judged")
        return {key: one if key in kept else hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_no_text_of_a_document_becomes_markup(document: dict[str, Any]) -> None:
    for one in (*document["networks"], *document["left_out"], *document["worst"]):
        one["name"] += HOSTILE
    text = page(hostile(document) | {"kind": "validation"})
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    OUTLINE(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(kind="bench"),
        lambda d: d.update(schema_version=2),
        lambda d: d["networks"][0].update(measured_ms="fast"),
        lambda d: d["networks"][0].update(interval_ms=None),
        lambda d: d.pop("lut"),
    ],
)
def test_another_document_is_refused(document: dict[str, Any], change: Any) -> None:
    change(document)
    with pytest.raises(UsageError, match="the result document"):
        page(document)


def test_the_page_is_written_whole_or_not_at_all(document: dict[str, Any], tmp_path: Path) -> None:
    target = render(document, tmp_path / "validation.html")
    assert target.read_text("utf-8") == page(document)
    with pytest.raises(StorageError):
        render(document, tmp_path / "absent" / "validation.html")
    assert [path.name for path in tmp_path.iterdir()] == ["validation.html"]


class Marks(HTMLParser):
    """Where circles and the band stand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.circles: list[tuple[float, float]] = []
        self.paths: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "circle":
            self.circles.append((float((found["cx"] or "").rstrip("%")), float(found["cy"] or "")))
        if tag == "path":
            self.paths.append(found["d"] or "")


@pytest.mark.parametrize("log", [False, True])
def test_a_prediction_that_is_exact_stands_on_the_diagonal_and_a_close_one_within_the_band(log: bool) -> None:
    scale = Scale(1.0, 100.0, log)
    exact, close = Dot(10, 10, (10, 10), "exact"), Dot(50, 52.5, (50, 50), "5 % more", hollow=True)
    found = Marks(scatter(scale, [exact, close], 0, "ms", "a title"))
    (x, y), (u, v) = sorted(found.circles)
    assert y == pytest.approx(PLOT_PX * (1 - x / 100), abs=0.01)
    corners = [tuple(map(float, pair.split())) for pair in found.paths[0].strip("MZ").split("L")]
    ahead, behind = corners[-2], corners[-1]  # the upper edge of the band
    edge = behind[1] + (10 * u - behind[0]) / (ahead[0] - behind[0]) * (ahead[1] - behind[1])
    assert 1000 * v / PLOT_PX == pytest.approx(edge, abs=0.6)


def test_errors_are_drawn_on_both_sides_of_zero() -> None:
    assert errors_scale([]) == Scale(-0.1, 0.1)
    assert errors_scale([0.25, -0.1]) == Scale(-0.375, 0.375)
    assert errors_scale([5.0]) == Scale(-1.0, 1.0)
