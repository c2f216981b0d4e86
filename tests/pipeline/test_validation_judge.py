"""The ways of predicting on the same networks, by closed forms; what was required; and what the document says of it all."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.conditions import Gates
from latency_luts import OpKey, validate
from pipeline.deploy import Target
from pipeline.errors import CheckFailed, UnsupportedOp, UsageError
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.validation import baselines
from pipeline.validation.alone import write_alone
from pipeline.validation.baselines import Predicted, by_forests, by_kernels_alone, by_macs, features, macs_of, op_type
from pipeline.validation.context import Place, check_context, differences
from pipeline.validation.document import PROFILE_NOTE, Found, headline, validation_document
from pipeline.validation.judge import ALONE, FOREST, MACS, TABLE, Verdict, judge, required, scaled
from pipeline.validation.measured import Judged, LeftOut
from pipeline.validation.run import Asked, command_of, in_context
from pipeline.validation.summary import lines

MADE = runpy.run_path(str(Path(__file__).with_name("test_validation_measured.py")))
CONV, POINT, ADD, DEPTHWISE = (MADE[name] for name in ("CONV", "POINT", "ADD", "DEPTHWISE"))
table, case, judged = MADE["table"], MADE["case"], MADE["judged"]

LATENCIES = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=4, max_size=9)
MEASURED = {
    "device": "host", "soc": "a model", "os_build": "an OS, 6.1", "abi": "x86_64", "runtime": "onnxruntime",
    "runtime_version": "1", "runtime_sha256": "0" * 64, "delegate": "", "threads": 1, "simulated": False,
}  # fmt: skip
PLACE = Place("host", "x86_64", "host", MEASURED)


def networks(*factors: float) -> list[Judged]:
    """n convolutions each, 10 µs apiece in the table; they take `factor` times that."""
    return judged(
        *(
            case(*[CONV] * n, name=f"net{n}", ms=0.010 * n * factor, stable=n > 1)
            for n, factor in enumerate(factors, start=1)
        )
    )


def verdict(some: list[Judged], name: str = TABLE) -> Verdict:
    return judge(name, Predicted({one.case.name: one.table_ms for one in some}), some)


@given(LATENCIES)
@settings(deadline=None, max_examples=20)
def test_scaled_predictions_are_those_that_the_tables_package_judges(pairs: list[tuple[float, float]]) -> None:
    measured, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    found = scaled(measured, predicted)
    for one in validate(measured, predicted).worst:
        assert found[int(one.name)] == pytest.approx(one.predicted_ms)


def test_one_factor_between_sum_and_whole_is_an_error_as_it_is_and_none_when_scaled() -> None:
    found = verdict(networks(1.25, 1.25, 1.25, 1.25)).validation
    assert found is not None and found.scaled is not None
    assert found.plain.within_10 == 0 and found.plain.bias == pytest.approx(-0.2)
    assert found.scaled.rmspe == pytest.approx(0, abs=1e-9) and found.factor == pytest.approx(1.25)


def test_fewer_than_four_networks_are_judged_as_they_are() -> None:
    found = verdict(networks(1.0, 1.04, 1.2))
    assert not found.scaled_ms and found.validation is not None and found.validation.scaled is None
    requirement = required(0.5, found.validation)
    assert requirement is not None and (requirement.judged, requirement.met) == ("plain", True)
    assert requirement.found == pytest.approx(2 / 3)
    assert judge(MACS, by_macs(networks(1, 1, 1)), networks(1, 1, 1)).validation is None


def test_a_requirement_that_is_not_met_says_what_was_asked_and_found() -> None:
    found = verdict(networks(1, 1, 1, 2)).validation
    assert found is not None
    assert required(None, found) is None
    requirement = required(0.9, found)
    assert requirement is not None and requirement.judged == "scaled"
    with pytest.raises(CheckFailed, match=r"90.0 % of the networks within 5 % were asked .*scaled sums, 75.0 % were found"):
        requirement.check()


@pytest.mark.parametrize(
    ("key", "macs"),
    [
        (CONV, 6 * 6 * 4 * 9 * 3),
        (POINT, 6 * 6 * 8 * 4),
        (DEPTHWISE, 4 * 4 * 8 * 9),
        (OpKey("linear", (2, 5), 7, dtype="float32"), 2 * 5 * 7),
        (ADD, 0),
    ],
)
def test_multiply_accumulates_of_a_key(key: OpKey, macs: int) -> None:
    assert macs_of(key) == macs


def test_macs_predict_what_is_proportional_to_them_and_nothing_of_a_network_without() -> None:
    some = [*networks(1, 1, 1, 1), *judged(case(ADD, name="sum"))]
    found = judge(MACS, by_macs(some), some)
    assert found.validation is not None and found.validation.scaled is not None
    assert found.validation.count == 4 and found.validation.scaled.rmspe == pytest.approx(0, abs=1e-9)
    assert found.scaled_ms["net3"] == pytest.approx(0.030) and not found.plain_ms
    assert found.predicted.not_judged == {"sum": "it has no multiply-accumulates"}


def test_kernels_alone_are_summed_and_a_network_that_lacks_one_is_not_judged() -> None:
    some = judged(case(CONV, CONV, ADD, name="a"), case(CONV, POINT, name="b"))
    found = by_kernels_alone(some, {CONV: 7.0, ADD: 2.0}, {POINT: "it cannot be written"})
    assert found.ms == {"a": pytest.approx(0.016)}
    assert found.not_judged == {"b": f"{POINT}: it cannot be written"}


def test_a_kernel_alone_is_found_again_whichever_others_are_asked(tmp_path: Path) -> None:
    fake = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
    device, target = fake["FakeDevice"](tmp_path / "device"), Target(fake["installed"](tmp_path)["host"], "onnxruntime", "")

    def names(*keys: OpKey) -> dict[OpKey, str]:
        return {one.plan.keys[0]: one.case.id for one in write_alone(keys, target, device, tmp_path, 1)}

    both = names(CONV, POINT)
    assert names(POINT) == {POINT: both[POINT]} and len(set(both.values())) == 2


def grid(factor: float = 1.0, own: float = 1.0) -> dict[OpKey, float]:
    """Pointwise convolutions whose time is their channels'; `own` times as much for the one of 64."""
    keys = {c: OpKey("conv2d", (1, c, 8, 8), c, dtype="float32") for c in range(8, 136, 8)}
    return {key: factor * c * (own if c == 64 else 1) for c, key in keys.items()}


def forest(us: dict[OpKey, float], *keys: OpKey, seed: int = 1) -> Predicted:
    return by_forests(judged(case(*keys), us=us), table(us), seed)


def test_forests_never_see_the_kernels_of_the_network_that_they_predict() -> None:
    key = OpKey("conv2d", (1, 64, 8, 8), 64, dtype="float32")
    assert forest(grid(), key).ms == forest(grid(own=50), key).ms
    assert forest(grid(), key).ms["net"] == pytest.approx(0.064, rel=0.2)
    assert forest(grid(2), key).ms["net"] == pytest.approx(2 * forest(grid(), key).ms["net"])


def test_forests_are_the_same_every_time_and_sum_over_kernels() -> None:
    key = OpKey("conv2d", (1, 64, 8, 8), 64, dtype="float32")
    assert forest(grid(), key, seed=3) == forest(grid(), key, seed=3)
    assert forest(grid(), key, key, key).ms["net"] == pytest.approx(3 * forest(grid(), key).ms["net"])


def test_an_op_with_few_kernels_shares_a_forest_and_that_is_said() -> None:
    found = forest({**grid(), ADD: 3.0}, ADD)
    assert "add" in found.note and found.ms["net"] > 0
    without = forest({CONV: 1.0, ADD: 1.0}, CONV)
    assert not without.ms and "fewer than 5 kernels" in without.not_judged["net"]


def test_kernels_that_cannot_be_are_no_lesson_for_a_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = OpKey("conv2d", (1, 8, 2, 2), 8, (5, 5), dtype="float32")
    scalar = OpKey("linear", (), 4, dtype="float32")
    for key in (broken, scalar):
        with pytest.raises(UnsupportedOp):
            features(key)
    key = OpKey("conv2d", (1, 64, 8, 8), 64, dtype="float32")
    assert forest({**grid(), broken: 9e6, scalar: 9e6}, key).ms == forest(grid(), key).ms
    monkeypatch.setattr(baselines, "MAX_TRAINED", 8)
    assert len(baselines._Kernels(table(grid()))._keys) == 8


def test_depthwise_convolutions_have_a_forest_of_their_own() -> None:
    assert op_type(DEPTHWISE) == "depthwise" and op_type(POINT) == op_type(CONV) == "conv2d" and op_type(ADD) == "add"


def test_fields_of_the_context_that_differ_are_named_unless_that_is_allowed() -> None:
    assert differences(table().context, PLACE) == []
    found = differences(table(soc="another", runtime_sha256="f" * 64, os_build="newer").context, PLACE)
    assert [one.field for one in found] == ["soc", "runtime_sha256"]
    with pytest.raises(UsageError, match=r"soc: 'another' and 'a model'; runtime_sha256: 'f{16}' and '0{16}'"):
        check_context(table().context, found, allowed=False)
    check_context(table().context, found, allowed=True)


def test_a_table_of_a_simulated_device_is_refused_whatever_is_allowed() -> None:
    with pytest.raises(UsageError, match="simulated"):
        check_context(table(simulated=True).context, [], allowed=True)


def request(**more: Any) -> Request:
    return Request(("a",), "host", (), Settings(), Path("reports"), **more)


def test_the_tables_runtime_threads_and_cores_are_measured_with() -> None:
    found = in_context(request(), table(threads=2).context, PLACE)
    assert (found.runtimes, found.bundles, found.delegate) == (("onnxruntime",), ("host",), "")
    assert (found.settings.threads, found.settings.cpu_mask) == (2, 2)
    for odd in ({"cpu_mask": "all of them"}, {"soc": "another"}):
        assert in_context(request(), table(**odd).context, PLACE).settings.cpu_mask == 0


def test_a_run_of_another_runtime_does_not_go_on_with_this_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was begun with"):
        in_context(request(resume=tmp_path), table().context, PLACE)


def test_the_command_line_asks_for_the_same_again() -> None:
    asked = Asked(Path("t"), request(gates=None), within5=0.9, interpolate=False, isolated=False)
    words = "--device host --require-within5 0.9 --no-interpolate --no-isolated --ignore-conditions"
    assert command_of(asked) == f"handset lut validate --lut t a {words}"
    assert command_of(Asked(Path("t"), request(gates=Gates()))) == "handset lut validate --lut t a --device host"


def document(factors: tuple[float, ...] = (1, 1, 1, 1.5), **more: Any) -> dict[str, Any]:
    some = networks(*factors)
    ways = {
        TABLE: Predicted({one.case.name: one.table_ms for one in some}),
        ALONE: by_kernels_alone(some, {CONV: 9.0}, {}),
        FOREST: Predicted({}, {"net1": "too few"}, "a note"),
        MACS: by_macs(some),
    }
    verdicts = [judge(name, way, some) for name, way in ways.items()]
    assert verdicts[0].validation is not None
    known: dict[str, Any] = {
        "command": "handset lut validate", "lut": "t.parquet", "lut_sha256": "a" * 64, "table": table(), "place": PLACE,
        "differences": differences(table().context, PLACE), "judged": some, "verdicts": verdicts,
        "bench": {"run": "a-run", "created": "2026", "device": {}, "settings": {"threads": 1}, "notes": ["a note of it"]},
        "left_out": [LeftOut(case(ADD, name="odd", failed="it crashed", measured_ms=None, interval_ms=None), "why", ("x",))],
        "requirement": required(0.9, verdicts[0].validation), "interpolate": True, "isolated": True, "seed": 1,
    }  # fmt: skip
    return validation_document(Found(**(known | more)))


def test_the_document_holds_all_and_is_json() -> None:
    found = document()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["kind"], found["schema_version"]) == ("validation", 1)
    assert found["counts"] == {"asked": 5, "judged": 4, "left_out": 1, "unstable": 1, "failed": 1}
    assert found["requirement"] == {"within5_asked": 0.9, "within5_found": 0.75, "judged": "scaled", "met": False}
    assert [one["name"] for one in found["predictors"]] == ["table", "alone", "forest", "macs"]
    assert found["predictors"][3]["plain"] is None and found["predictors"][3]["scaled"] is not None
    assert found["predictors"][2]["count"] == 0 and found["predictors"][2]["not_judged"] == {"net1": "too few"}
    first = found["networks"][0]
    assert first["predicted_ms"]["table"]["plain"] == pytest.approx(0.010)
    assert first["predicted_ms"]["alone"]["plain"] == pytest.approx(0.009)
    assert first["predicted_ms"]["forest"] == {"plain": None, "scaled": None}
    assert first["coverage"] == {"measured": 1, "interpolated": 0} and first["interpolated_share"] == 0
    assert found["left_out"][0]["reason"] == "why" and found["left_out"][0]["missing"] == ["x"]
    assert found["notes"] == [PROFILE_NOTE, "random forests: a note", "a note of it"]


def test_the_worst_networks_are_explained_by_their_profile() -> None:
    worst = document()["worst"]
    assert worst[0]["name"] == "net4" and len(worst) == 4
    assert worst[0]["error"] == pytest.approx(-1 / 3)
    assert worst[0]["table_minus_profile_ms"] == pytest.approx(0.040 - 0.004)
    assert worst[0]["profile_minus_measured_ms"] == pytest.approx(0.004 - 0.060)
    assert worst[0]["kernels"][0]["key"] == str(CONV) and worst[0]["kernels"][0]["times"] == 4
    assert worst[0]["footprint"]["largest_kernel_bytes"] == 4 * (3 * 64 + 4 * 36 + 4 * 28)


def test_what_the_reader_must_know_is_noted() -> None:
    other = differences(table(soc="another").context, PLACE)
    found = document(differences=other, table=table())
    assert any("OTHER CONTEXT" in note and "soc" in note for note in found["notes"])
    some = judged(case(CONV, name="other", profile=(MADE["Row"]("add", ADD, 1.0),)))
    found = document((1, 1, 1, 1), judged=some, verdicts=[verdict(some)], requirement=None)
    assert found["networks"][0]["in_table"] and any("not held out" in note for note in found["notes"])
    assert any("are not those of its profile" in note for note in found["notes"])


def test_the_headline_counts_networks() -> None:
    assert headline(verdict(networks(1, 1, 1, 1.5)), 0) == (
        "the table's sum, times one factor of 1.000, is within 5 % of end to end for 3 of 4 networks, RMSPE 17 %"
    )
    assert headline(verdict(networks(1.25)), 2) == (
        "the table's sum is within 5 % of end to end for 0 of 1 network, RMSPE 20 %; 2 left out"
    )


def test_the_summary_is_a_row_for_each_way_and_a_verdict() -> None:
    found = lines(document(), Path("reports/run/validation.html"))
    assert found[2].split()[:6] == ["the", "table's", "sum", "4", "75", "%"]
    assert found[4].split() == ["random", "forests", "0", *"------"]
    assert "left out  odd: why" in found and found[-1] == "page      reports/run/validation.html"
    assert "verdict   not good enough: 75 % within 5 % (scaled), 90 % asked" in found
    assert max(map(len, found[1:6])) <= 80
    other = differences(table(soc="another").context, PLACE)
    assert lines(document(differences=other), Path("p"))[0].startswith("OTHER CONTEXT: the table was made with another soc")
