"""MACs and parameters against latency: rank correlations by hand, pairs that are turned around, names that cover nothing."""

from __future__ import annotations

import copy
import io
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import terminal
from pipeline.report.counts import pair_text
from pipeline.report.document import read
from pipeline.report.page import page
from pipeline.report.placing import Box, beside
from pipeline.report.ranks import Ranks, as_document, ranks

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
BASE = SAMPLE["sample"]()
PROFILE = next(one for one in BASE["profiles"] if not one["failed"])


def document(
    networks: dict[str, tuple[float | None, float | None, float]], runtime: str = "onnxruntime"
) -> dict[str, Any]:
    """name -> (MACs, parameters, latency in ms with an interval of ±1 %)."""
    made = copy.deepcopy({**BASE, "networks": [], "profiles": [], "notes": []})
    for name, (macs, params, ms) in networks.items():
        network = {"name": name, "source": "zoo", "input_shape": [1, 3, 8, 8], "params": params, "macs": macs}
        made["networks"].append({**network, "accuracy": None, "compressed_from": None, "compression": None})
        estimate = {"median": ms, "interval": [0.99 * ms, 1.01 * ms], "confidence": 0.95, "samples": 100}
        latency = {**PROFILE["latency_ms"], **estimate, "corrected": estimate}
        made["profiles"].append({**copy.deepcopy(PROFILE), "network": name, "runtime": runtime, "latency_ms": latency})
    return made


def of(networks: dict[str, tuple[float | None, float | None, float]]) -> Ranks:
    (found,) = ranks(read(document(networks)))
    return found


FOUR = {"a": (10, 4, 1.0), "b": (20, 3, 2.0), "c": (30, 2, 4.0), "d": (40, 1, 3.0)}
"""By MACs one pair of six is turned around; by parameters all but that one."""


def test_correlations_by_hand() -> None:
    found = of(FOUR)
    assert found.macs.kendall == pytest.approx((5 - 1) / 6) and found.params.kendall == pytest.approx(-(5 - 1) / 6)
    assert found.macs.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 - 6 sum of d^2 / (n (n^2 - 1))
    assert [(slow.network, fast.network) for slow, fast in found.worst] == [("c", "d")]


def test_the_document_says_the_same() -> None:
    (found,) = as_document(ranks(read(document(FOUR))))
    assert found["runtime"] == "onnxruntime" and found["networks"] == 4
    assert found["macs"] == {"spearman": pytest.approx(0.8), "kendall": pytest.approx(2 / 3)}
    assert found["worst_pairs"] == [{"networks": ["c", "d"], "macs": [30, 40], "latency_ms": [4.0, 3.0]}]


def test_a_pair_within_the_noise_is_none_and_each_network_stands_in_one() -> None:
    assert of({**FOUR, "c": (30, 2, 3.03)}).worst == ()
    found = of({"a": (1, 1, 9.0), "b": (2, 2, 8.0), "c": (3, 3, 2.0), "d": (4, 4, 1.0), "e": (100, 5, 20.0)})
    assert [(slow.network, fast.network) for slow, fast in found.worst] == [("a", "d"), ("b", "c")]
    assert (
        pair_text(*found.worst[0]) == "a has 25 % of the MACs of d, and takes 9.00x as long (9.00 ms against 1.00 ms)"
    )


def test_fewer_than_three_networks_with_counts_give_nothing() -> None:
    assert ranks(read(document({"a": FOUR["a"], "b": FOUR["b"]}))) == []
    assert ranks(read(document({**FOUR, "c": (None, 2, 4.0), "d": (40, None, 3.0)}))) == []
    assert ranks(read(document({name: (10, 4, ms) for name, (_, _, ms) in FOUR.items()}))) == []
    assert 'id="counts"' not in page(read(document({"a": FOUR["a"], "b": FOUR["b"]})))


def test_wrong_answers_and_failures_count_for_nothing() -> None:
    made = document({**FOUR, "e": (1, 9, 100.0), "f": (1, 9, 100.0)})
    made["profiles"][4]["numerics"] = {**SAMPLE["numerics"](1, None, "onnxruntime"), "agrees": False}
    made["profiles"][5] = {"network": "f", "runtime": "onnxruntime", "failed": "f cannot become .onnx"}
    (found,) = ranks(read(made))
    assert {point.network for point in found.points} == set(FOUR)


def test_the_page_has_a_dot_and_a_name_for_each_network_in_both_plots() -> None:
    text = page(read(document(FOUR)))
    section = text[text.index('id="counts"') : text.index('id="samples"')]
    assert section.count("<svg") - section.count('class="mark"') == 2
    for name, (macs, params, ms) in FOUR.items():
        assert section.count(f">{name}</text>") == 2
        assert f"{name} in onnxruntime: {macs:.0f} MACs, {ms:.2f} ms" in section
        assert f"{name} in onnxruntime: {params:.0f} parameters, {ms:.2f} ms" in section
    assert "<b>0.80</b>" in section and "0.67" in section and "c has 75 % of the MACs of d" in section


def test_two_runtimes_of_one_network_are_joined() -> None:
    made, other = document(FOUR), document({name: (m, p, 2 * ms) for name, (m, p, ms) in FOUR.items()}, "litert")
    made["profiles"] += other["profiles"]
    section = page(read(made)).split('id="counts"')[1]
    assert section.count('class="stem"') == 2 * 4 and section.count(">a</text>") == 2
    assert [one.label for one in ranks(read(made))] == ["onnxruntime", "litert"]


def test_names_are_escaped() -> None:
    text = page(read(document({**FOUR, "<script>alert(1)</script>": (50, 5, 5.0)})))
    assert "<script" not in text and "&lt;script&gt;" in text.split('id="counts"')[1]


def test_a_terminal_is_told_of_eight_and_more() -> None:
    def said(count: int) -> str:
        out = io.StringIO()
        terminal(document({f"n{i}": (10 + i, 5 + i, 1.0 + (i * 7) % count) for i in range(count)}), file=out, width=200)
        return out.getvalue()

    assert "ranks" not in said(7)
    assert re.search(
        r"ranks +in onnxruntime MACs tell the order of 8 networks with Spearman's \S+ and Kendall's", said(8)
    )
    assert "of the MACs of" in said(8)


@given(
    places=st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=1, max_size=40),
    width=st.floats(5, 120),
)
def test_names_stand_in_the_frame_and_meet_nothing(places: list[tuple[float, float]], width: float) -> None:
    frame = Box(0, 0, 300, 200)
    taken = [Box.around(x, y, 6.0) for x, y in places]
    for place in places:
        box = beside([place], width, 11.5, taken, frame)
        if box is not None:
            assert frame.holds(box) and not any(box.meets(other) for other in taken)
            taken.append(box)
