"""Reading a result document, and what is said about it in words."""

from __future__ import annotations

import copy
import dataclasses
import runpy
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency_luts import stats
from pipeline.errors import UsageError
from pipeline.report import checks, context, correction, facts, sections
from pipeline.report.document import read
from pipeline.report.text import plus_minus
from pipeline.report.views import Estimate, Measured

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
Document = dict[str, Any]


@pytest.fixture
def result() -> Document:
    found: Document = SAMPLE["sample"]()
    return found


def fix(result: Document, index: int, median: float, share: float, stable: bool = True) -> None:
    """Gives a profile a known latency, plain and corrected."""
    profile = result["profiles"][index]
    ends = {"median": median, "interval": [median * (1 - share), median * (1 + share)]}
    profile["latency_ms"] |= {**ends, "corrected": {**ends, "confidence": 0.95}}
    profile["verdict"]["stable"] = stable


def test_the_sample_repeats_exactly(result: Document) -> None:
    assert result == SAMPLE["sample"]()
    assert SAMPLE["hostile"]() == SAMPLE["hostile"]()


def test_headline(result: Document) -> None:
    fix(result, 0, 9.7, 0.004)
    fix(result, 1, 11.6, 0.004)
    first = facts.headline(read(result))[0]
    assert first == "mobilenet_v2 takes 9.70 ms (±0.4 %) in onnxruntime, 1.2x faster than in litert"


def test_headline_names_the_fastest_runtime_and_doubt(result: Document) -> None:
    fix(result, 0, 11.6, 0.004)
    fix(result, 1, 9.7, 0.05, stable=False)
    first = facts.headline(read(result))[0]
    assert first == "mobilenet_v2 takes 9.70 ms (±5.0 %, not stable) in litert, 1.2x faster than in onnxruntime"


def test_headline_says_nothing_that_the_intervals_do_not(result: Document) -> None:
    fix(result, 0, 9.7, 0.02)
    fix(result, 1, 9.9, 0.02)
    assert facts.headline(read(result))[0].endswith("in onnxruntime, as fast, within the noise, as in litert")


def test_headline_tells_of_failures_and_parents(result: Document) -> None:
    _, resnet, _, ranked = facts.headline(read(result))
    assert resnet.endswith("in onnxruntime; it failed in litert")
    assert ranked.endswith("2.6x faster than digits_cnn")


def test_headline_of_a_network_that_only_failed(result: Document) -> None:
    result["profiles"] = [{"network": "resnet20", "runtime": "litert", "failed": "no such op"}]
    lines = facts.headline(read(result))
    assert lines[1] == "resnet20 could not be measured: no such op"
    assert lines[0] == "mobilenet_v2 could not be measured: it was not run"


def test_headline_of_many_networks_is_one_sentence_and_those_that_failed(result: Document) -> None:
    network, profile = result["networks"][0], result["profiles"][0]
    fix(result, 0, 9.7, 0.004)
    names = [f"net{number}" for number in range(10)]
    result["networks"] = [network | {"name": name} for name in names]
    result["profiles"] = [copy.deepcopy(profile) | {"network": name} for name in names[:9]]
    fix(result, 3, 2.5, 0.004)
    fix(result, 8, 70, 0.04, stable=False)
    said = "9 networks take 2.50 ms (net3) to 70.0 ms (net8) in onnxruntime; 1 of 9 latencies are not stable"
    assert facts.headline(read(result)) == [said, "net9 could not be measured: it was not run"]
    result["profiles"] += [copy.deepcopy(result["profiles"][1]) | {"runtime": "litert"}]
    assert "(net8), each in the runtime that is faster for it; 1 of 10 latencies" in facts.headline(read(result))[0]
    for name in ("networks", "profiles"):
        result[name] = result[name][:8]
    assert len(facts.headline(read(result))) == 8


def test_headline_without_networks(result: Document) -> None:
    assert facts.headline(read(result | {"networks": [], "profiles": []})) == ["No network was measured."]


def test_comparisons_stand_on_one_footing(result: Document) -> None:
    """A corrected median is never compared with a plain one."""
    del result["profiles"][1]["latency_ms"]["corrected"]
    a, b = (case.measured for case in facts.cases(read(result).of("mobilenet_v2")))
    assert a.corrected is not None
    assert facts.comparable(a, b) == (a.plain, b.plain)


def test_speed_up_has_the_widest_interval(result: Document) -> None:
    fix(result, 0, 10.0, 0.1)
    fix(result, 1, 5.0, 0.1)
    a, b = (case.measured for case in facts.cases(read(result).of("mobilenet_v2")))
    speed = facts.speed_up(a, b)
    assert (speed.median, speed.low, speed.high) == pytest.approx((2.0, 9 / 5.5, 11 / 4.5))


def test_corrected_samples_are_the_undisturbed_ones_scaled(result: Document) -> None:
    measured = few_samples(result)
    assert correction.canaries_ns(measured) == [1.5e6, 2e6, 1e6, 3e6, 9e6]
    assert correction.kept(measured) == [False, True, True, True, True]
    assert correction.undisturbed(measured, 2.5) == [False, True, False, False, False]
    assert correction.undisturbed(measured, 3.5) == [False, True, False, True, False]
    assert correction.corrected_ms(measured, 3.5) == pytest.approx([4 / 2**0.5, 8 / 3**0.5])
    assert correction.corrected_ms(dataclasses.replace(measured, corrected=None), 3.5) == []


def few_samples(result: Document) -> Measured:
    profile = result["profiles"][0]
    profile |= {
        "samples_ns": [2e6, 4e6, 6e6, 8e6, 9e6],
        "canary_ns": [1e6, 2e6, 1e6, 3e6, 9e6],
        "kept": [0, 1, 1, 1, 1],
    }
    profile |= {"start_ns": [0, 1, 2, 3, 4], "launch": [0, 0, 0, 0, 1], "block": [1, 1, 2, 3, 3]}
    profile |= {"preempted": [0, 0, 2, 0, 0]}
    profile["canary"] |= {"reference_ns": 1e6, "exponent": 0.5}
    return facts.cases(read(result).profiles)[0].measured


@pytest.mark.parametrize("lacking", ["canary", "canary_ns"])
def test_without_a_canary_samples_are_chosen_but_not_scaled(result: Document, lacking: str) -> None:
    few_samples(result)
    result["profiles"][0][lacking] = None
    measured = facts.cases(read(result).profiles)[0].measured
    assert correction.corrected_ms(measured, 2.5) == [4.0, 8.0, 9.0]


def test_the_correction_is_that_of_the_statistics(result: Document) -> None:
    """The canary after a block's last sample is not in a document: all others must agree exactly."""
    bench = read(result)
    for case in facts.cases(bench.profiles):
        m = case.measured
        assert m.canary is not None and m.corrected is not None
        launch = stats.Launch(
            samples=np.array(m.samples_ns), canary=np.array(correction.canaries_ns(m)), block=np.array(m.block, dtype=int),
            preempted=np.array(m.preempted, dtype=int), kept=np.array(m.kept, dtype=bool),
        )  # fmt: skip
        expected = stats.corrected(launch, m.canary.reference_ns, m.canary.exponent) / 1e6
        drawn = correction.corrected_ms(m, stats.DISTURBED_CANARY)
        assert drawn == pytest.approx(expected.tolist(), rel=1e-12)
        assert statistics.median(drawn) == pytest.approx(m.corrected.median)
        assert 1 - len(drawn) / sum(m.kept) == pytest.approx(m.disturbed_share)
        assert 0 < len(drawn) < sum(m.kept)


@pytest.mark.parametrize(("low", "high"), [(9.0, 10.5), (9.9, 10.0), (9.51, 10.03)])
def test_the_half_width_is_that_of_the_verdict(low: float, high: float) -> None:
    theirs = stats.Estimate(10.0, low, high, 0.95, 9).half_width
    assert Estimate(10.0, low, high).half_width == theirs
    assert plus_minus(theirs) == f"±{theirs:.1%}".replace("%", " %")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.4, 0.9], "0.40 before, 0.90 after measuring"),
        ([None, 41.0], "41.00 after measuring"),
        ([3.0], "3.00 measuring"),
        ([None, None], "not readable"),
        ([], "not readable"),
    ],
)
def test_before_and_after(values: list[float | None], text: str) -> None:
    assert context.before_and_after(values, "") == text


def test_stages_add_up_to_the_whole(result: Document) -> None:
    rows = context.stages(read(result))
    assert [row[0] for row in rows][::4] == ["measuring", "the whole run"]
    assert sum(float(seconds) for _, seconds, _ in rows[:-1]) == pytest.approx(60.0, abs=0.05)
    assert context.stages(read(result | {"stages_s": {}})) == []


def test_the_differences_are_an_equation(result: Document) -> None:
    for row in checks.differences(read(result)):
        end, cost, profiled, between, whole = (
            float(row[name].replace("−", "-")) for name in ("end_to_end", "cost", "profiled", "between", "sum")
        )
        assert profiled == pytest.approx(end + cost, rel=0.01)
        assert whole == pytest.approx(profiled - between, rel=0.01)


def test_times_by_kind_add_up_to_the_kernels(result: Document) -> None:
    measured = facts.cases(read(result).profiles)[0].measured
    by_kind = facts.by_kind(measured)
    assert sum(ms for _, ms in by_kind) == pytest.approx(sum(facts.kernel_ms(measured)))
    assert [ms for _, ms in by_kind] == sorted((ms for _, ms in by_kind), reverse=True)


def test_one_kernel_without_correction_makes_all_plain(result: Document) -> None:
    del result["profiles"][0]["kernels"][3]["latency_ms"]["corrected"]
    measured = facts.cases(read(result).profiles)[0].measured
    assert facts.kernel_ms(measured) == [kernel.plain.median for kernel in measured.kernels]


def test_the_same_runtime_twice_is_told_apart(result: Document) -> None:
    for delegate, threads in (("xnnpack", 4), ("", 1)):
        other = copy.deepcopy(result["profiles"][1])
        result["profiles"].append(other | {"delegate": delegate, "threads": threads})
    labels = [profile.label for profile in read(result).of("mobilenet_v2")]
    assert labels == ["onnxruntime", "litert xnnpack t1", "litert xnnpack t4", "litert"]


def test_next_prefers_what_is_not_stable(result: Document) -> None:
    assert facts.next_commands(read(result)) == ["handset bench mobilenet_v2 --device host --budget 12"]
    result["profiles"][1]["verdict"]["stable"] = True
    assert len(facts.next_commands(read(result))) == 5


@pytest.mark.parametrize(("value", "text"), [(0.975, "97.5 %"), (1.0, "100 %"), (0.0, "0 %"), (31.4, "31.4")])
def test_scores(value: float, text: str) -> None:
    assert facts.score(value) == text


def test_parity_beyond_its_tolerance_is_said(result: Document) -> None:
    result["profiles"][0]["artifact"]["parity"]["worst_error"] = 0.5
    result["profiles"][1]["artifact"]["parity"] = None
    rows = checks.parity(read(result))
    assert [row.verdict for row in rows[:3]] == ["exceeds", "no torch model to compare with", "within"]


def test_accuracy_change_is_in_points(result: Document) -> None:
    bench = read(result)
    ranked, (onnx, litert) = bench.networks[3].accuracy, bench.of("digits_cnn_tucker2")
    assert ranked is not None
    assert facts.accuracy_change(ranked, litert) == "−0.3 points"
    assert facts.accuracy_change(ranked, onnx) == "same"
    assert facts.accuracy_change(ranked, dataclasses.replace(litert, runtime="another")) == ""


def test_intervals_show_digits_that_tell_their_ends_apart() -> None:
    assert sections.interval_text(Estimate(9.70, 9.701, 9.704)) == "9.701 – 9.704"
    assert sections.interval_text(Estimate(0.05, 0.049, 0.051)) == "49.0 – 51.0"


def test_an_unmeasured_parent_is_said(result: Document) -> None:
    result["profiles"] = [p for p in result["profiles"] if p["network"] != "digits_cnn"]
    pair = sections.pairs(read(result))[0]
    assert {row.before for row in pair.rows} == {"not measured"}
    assert {row.speed for row in pair.rows} == {""}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["kind"], "farm", "'farm' as kind, not a bench result"),
        (["schema_version"], 2, "as schema_version, not at most 1; try: a newer handset"),
        (["networks", 0, "name"], None, "nothing as networks[0].name, not a text"),
        (["profiles", 2, "latency_ms", "median"], float("nan"), "profiles[2].latency_ms.median, not a finite number"),
        (["profiles", 2, "latency_ms", "median"], "9.7", "'9.7' as profiles[2].latency_ms.median"),
        (["profiles", 0, "latency_ms", "interval"], [2, 1], "profiles[0].latency_ms.interval, not two numbers"),
        (["profiles", 0, "latency_ms", "interval"], [1], "profiles[0].latency_ms.interval, not two numbers"),
        (["profiles", 0, "canary_ns"], [1], "profiles[0].canary_ns, not 312 entries, one for each of samples_ns"),
        (["profiles", 0, "preempted"], [1, 2], "profiles[0].preempted, not 312 entries"),
        (["profiles", 0, "canary", "exponent"], None, "nothing as profiles[0].canary.exponent, not a number"),
        (["profiles", 0, "conditions", 0, "clocks_khz"], [None, "fast"], "profiles[0].conditions[0].clocks_khz[1]"),
        (["notes"], "none", "'none' as notes, not a list"),
        (["stages_s", "all"], "long", "'long' as stages_s.all, not a finite number"),
        (["profiles", 0, "samples_ns", 7], "x", "profiles[0].samples_ns[7]"),
        (["profiles", 0, "kernels"], {}, "profiles[0].kernels, not a list"),
        (["profiles", 0, "verdict"], "fine", "holds 'fine' at profiles[0].verdict, not an object"),
        (["device", "simulated"], "no", "'no' as device.simulated, not true or false"),
    ],
)
def test_a_wrong_field_is_named(result: Document, path: list[Any], value: object, words: str) -> None:
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(UsageError) as caught:
        read(result)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(UsageError, match="not an object"):
        read([1, 2])  # type: ignore[arg-type]
