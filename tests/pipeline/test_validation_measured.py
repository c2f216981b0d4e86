"""What a table is judged by: networks whose kernels it knows, and the others with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from latency_luts import Context, Entry, LatencyTable, OpKey
from pipeline.console import Console
from pipeline.validation.families import FAMILIES, carriers, family_of, residuals
from pipeline.validation.measured import Case, Judged, LeftOut, Planned, Row, ask, cases_of, listed, plan_keys

CONV = OpKey("conv2d", (1, 3, 8, 8), 4, (3, 3), dtype="float32")
POINT = OpKey("conv2d", (1, 4, 6, 6), 8, dtype="float32")
DEPTHWISE = OpKey("conv2d", (1, 8, 6, 6), 8, (3, 3), groups=8, dtype="float32")
ADD = OpKey("add", (1, 4, 8, 8), dtype="float32")
FREE = OpKey("reshape", (1, 4, 8, 8), dtype="float32")
US = {CONV: 10.0, POINT: 4.0, ADD: 1.0, FREE: 0.0}


def table(us: dict[OpKey, float] | None = None, **context: Any) -> LatencyTable:
    known: dict[str, Any] = {
        "device": "host", "soc": "a model", "os_build": "an OS, 6.1", "abi": "x86_64", "runtime": "onnxruntime",
        "runtime_version": "1", "runtime_sha256": "0" * 64, "delegate": "", "threads": 1, "cpu_mask": "0x2",
        "clocks": "", "handset_version": "0", "created": "2026-11-21T14:22:33Z", "simulated": False,
    }  # fmt: skip
    entries = tuple(
        Entry(key, 1e3 * time, (1e3 * time, 1e3 * time), (int(1e3 * time),), ("other",), "k")
        for key, time in (US if us is None else us).items()
    )
    return LatencyTable(Context(**(known | context)), entries)


def case(*keys: OpKey, ms: float = 1.0, name: str = "net", **more: Any) -> Case:
    rows = tuple(Row(key.op, key, 0.001) for key in keys)
    known: dict[str, Any] = {
        "measured_ms": ms, "interval_ms": (ms, ms), "stable": True, "planned": tuple(keys), "profile": rows,
    }  # fmt: skip
    return Case(name, "zoo", **(known | more))


def asked(one: Case, interpolate: bool = True) -> Judged | LeftOut:
    judged, left_out = ask([one], table(), interpolate=interpolate)
    return [*judged, *left_out][0]


def left_out(one: Case) -> LeftOut:
    found = asked(one)
    assert isinstance(found, LeftOut)
    return found


def judged(*cases: Case, us: dict[OpKey, float] | None = None) -> list[Judged]:
    found, rest = ask(cases, table(us), interpolate=True)
    assert not rest
    return found


def test_a_network_is_judged_by_the_sum_over_its_kernels_repetitions_counted() -> None:
    found = asked(case(CONV, ADD, CONV))
    assert isinstance(found, Judged)
    assert found.table_ms == pytest.approx(0.021)
    assert found.kernel_ms == pytest.approx((0.010, 0.001, 0.010))


def test_missing_kernels_are_named_once() -> None:
    found = left_out(case(CONV, DEPTHWISE, DEPTHWISE))
    assert found.reason == "the table does not know 2 of its 3 kernels" and found.missing == (str(DEPTHWISE),)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (Case("net", "zoo", failed="it crashed"), "it could not be measured: it crashed"),
        (case(planned=None, why="its kernels cannot be told: odd"), "its kernels cannot be told: odd"),
        (case(planned=None, profile=(Row("conv2d", CONV, 1), Row("odd", None, 1))), "1 of the 2 kernels of its profile"),
        (case(planned=None, profile=()), "0 of the 0 kernels"),
        (case(FREE), "no time in the table"),
    ],
)
def test_a_network_that_cannot_be_judged_says_why(one: Case, reason: str) -> None:
    assert reason in left_out(one).reason


def test_a_model_files_kernels_are_those_of_its_profile() -> None:
    found = asked(case(planned=None, profile=(Row("conv2d", CONV, 1), Row("add", ADD, 1))))
    assert isinstance(found, Judged) and found.keys == (CONV, ADD)


def test_kernel_times_follow_the_order_of_measured_and_interpolated_kernels() -> None:
    sizes = {OpKey("add", (1, 8 * c, 8, 8), dtype="float32"): float(c) for c in (1, 2, 3, 5, 6, 7, 8)}
    between = OpKey("add", (1, 32, 8, 8), dtype="float32")
    one = case(between, CONV, between)
    (found,) = judged(one, us={CONV: 10.0, **sizes})
    assert found.answer.kinds == ("interpolated", "measured", "interpolated")
    assert found.kernel_ms[1] == pytest.approx(0.010)
    assert found.kernel_ms[0] == found.kernel_ms[2] == pytest.approx(0.004, rel=0.05)
    assert ask([one], table({CONV: 10.0, **sizes}), interpolate=False)[1][0].missing == (str(between),)


@pytest.mark.parametrize(
    ("ran", "same", "reordered", "only"),
    [
        ((CONV, ADD), True, False, ({}, {})),
        ((ADD, CONV), False, True, ({}, {})),
        ((CONV, CONV), False, False, ({str(ADD): 1}, {str(CONV): 1})),
    ],
)
def test_the_list_that_was_told_is_laid_beside_the_profiles(
    ran: tuple[OpKey, ...], same: bool, reordered: bool, only: tuple[dict[str, int], dict[str, int]]
) -> None:
    found = listed(case(CONV, ADD, profile=tuple(Row(key.op, key, 1) for key in ran)))
    assert found is not None
    assert (found.same, found.reordered, (found.only_told, found.only_profile)) == (same, reordered, only)


def test_a_network_without_a_module_or_a_profile_has_no_two_lists() -> None:
    assert listed(case(CONV, planned=None)) is None and listed(case(CONV, profile=())) is None


def test_a_profile_becomes_a_case_and_a_failed_one_too() -> None:
    estimate = {"median": 2.0, "interval": [1.9, 2.1]}
    kernel = {"op": "add", "key": str(ADD), "latency_ms": {"median": 9.0, "corrected": {"median": 0.5}}}
    good = {
        "network": "a", "failed": None, "latency_ms": {"median": 9.0, "corrected": estimate}, "kernels": [kernel],
        "verdict": {"stable": False, "reasons": ["noise"]}, "artifact": {"bytes": 7}, "peak_memory_bytes": None,
    }  # fmt: skip
    networks = [{"name": name, "source": "zoo"} for name in "ab"]
    document = {"networks": networks, "profiles": [good, {"network": "b", "failed": "it crashed"}]}
    a, b = cases_of(document, {"a": Planned((ADD,)), "b": Planned(None, "odd")})
    assert (a.measured_ms, a.interval_ms, a.stable, a.reasons) == (2.0, (1.9, 2.1), False, ("noise",))
    assert a.profile == (Row("add", ADD, 0.5),) and a.planned == (ADD,) and a.model_bytes == 7
    assert b.measured_ms is None and b.failed == "it crashed" and b.why == "odd"


def test_kernels_are_told_of_a_module_and_a_reason_of_one_whose_ops_are_not_known(tmp_path: Any) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn, special\n"
        "class Bessel(nn.Module):\n"
        "    def forward(self, x): return special.bessel_j0(x)\n"
        "def good(): return nn.Conv2d(4, 8, 1), (1, 4, 6, 6)\n"
        "def odd(): return Bessel(), (1, 3, 8, 8)\n"
    )
    found = plan_keys([f"{file}:good", f"{file}:odd"], "litert", "x86_64", Console(quiet=True))
    assert POINT in (found["good"].keys or ())
    assert found["odd"].keys is None and "special_bessel_j0" in found["odd"].why


@pytest.mark.parametrize(
    ("op", "key", "family"),
    [
        ("conv2d", CONV, "dense"),
        ("conv2d", POINT, "pointwise"),
        ("conv2d", DEPTHWISE, "depthwise"),
        ("conv2d", OpKey("conv2d", (1, 8, 6, 6), 8, groups=2, dtype="float32"), "grouped"),
        ("conv2d", None, "dense"),
        ("add", ADD, "elementwise"),
        ("reorder_out", None, "reorder"),
        ("concat", None, "layout"),
        ("wobble", None, "other"),
    ],
)
def test_families(op: str, key: OpKey | None, family: str) -> None:
    assert family_of(op, key) == family and family in FAMILIES


def test_residuals_sum_over_networks_and_their_shares_to_the_whole_difference() -> None:
    rows = (Row("conv2d", CONV, 0.008), Row("add", ADD, 0.002), Row("odd", None, 0.001))
    found = {one.family: one for one in residuals(judged(case(CONV, ADD, profile=rows), case(CONV, profile=rows[:1])))}
    assert set(found) == {"dense", "elementwise", "other"}
    assert found["dense"].kernels == 2
    assert found["dense"].difference_ms == pytest.approx(0.004) and found["dense"].relative == pytest.approx(0.25)
    assert found["other"].kernels == 0 and found["other"].relative == pytest.approx(-1)
    assert sum(one.share for one in found.values()) == pytest.approx((0.021 - 0.019) / 0.021)


def test_the_kernels_that_carry_an_error_come_largest_first() -> None:
    rows = (Row("conv2d", CONV, 0.008), Row("conv2d", CONV, 0.009), Row("add", ADD, 0.001), Row("odd", None, 0.004))
    (one,) = judged(case(CONV, CONV, ADD, profile=rows))
    first, second = carriers(one, 5)  # the addition differs by nothing
    assert (first.key, first.times, first.table_ms) == ("odd without a key", 0, 0)
    assert (second.key, second.times, second.kind) == (str(CONV), 2, "measured")
    assert second.table_ms - second.profile_ms == pytest.approx(0.003)
    assert carriers(one, 1) == [first]
