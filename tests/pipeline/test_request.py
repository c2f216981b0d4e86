"""What was asked survives the plan of its run folder and its own command line, whatever it was; a damaged plan is told."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from devices.conditions import Gates
from devices.transport import DeviceDescription
from pipeline import bench_command, cli
from pipeline.errors import UsageError
from pipeline.request import Request, check_same_device, command_of, plan_of, planned
from pipeline.settings import Settings

PHONE = DeviceDescription("1.2.3.4:5555", "adb", "Google Pixel 9", "Android 15", "6.1", "arm64-v8a", 8, 1 << 33)
OLD_PLAN = {
    "schema_version": 1, "kind": "bench", "models": ["resnet20"], "device": "host", "runtimes": ["onnxruntime", "litert"],
    "settings": {"threads": 2, "budget_s": 3},
}  # fmt: skip
"""As the first version wrote it."""

words = some.text(some.characters(blacklist_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text[0] != "-")
names = some.lists(some.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), max_size=3, unique=True).map(tuple)
requests = some.builds(
    Request,
    models=some.lists(words, max_size=3).map(tuple),
    device=words,
    runtimes=names,
    bundles=names,
    aars=some.lists(words, max_size=2).map(tuple),
    delegate=some.sampled_from(["", "xnnpack", "builtin"]),
    gates=some.sampled_from([None, Gates()]),
    keep_settings=some.booleans(),
    allow_mismatch=some.booleans(),
    reports=some.just(Path("reports")),
    settings=some.builds(
        Settings,
        threads=some.integers(1, 64),
        cpu_mask=some.integers(1, (1 << 64) - 1) | some.just(0),
        interval=some.integers(1, 99).map(lambda percent: percent / 100),
        budget_s=some.integers(1, 1000).map(float),
        launches=some.integers(1, 100),
    ),
)


@given(requests)
def test_a_plan_gives_the_request_again(request: Request) -> None:
    plan = json.loads(json.dumps(plan_of(request, PHONE)))
    folder = Path("reports/run")
    assert planned(plan, folder) == dataclasses.replace(request, resume=folder)


@given(requests)
def test_the_command_asks_for_the_same(request: Request) -> None:
    arguments = cli.make_parser().parse_args(shlex.split(command_of(request))[1:])
    assert bench_command._request(arguments) == request


def test_a_plan_of_an_earlier_version() -> None:
    found = planned(OLD_PLAN, Path("reports/run"))
    settings = Settings(threads=2, budget_s=3)
    assert found == Request(
        ("resnet20",), "host", ("onnxruntime", "litert"), settings, Path("reports"), resume=Path("reports/run")
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": "resnet20"},
        {"models": [1]},
        {"device": None},
        {"runtimes": {"a": 1}},
        {"delegate": 3},
        {"gates": []},
        {"gates": {"max_load": "2"}},
        {"gates": {"max_noise": 2}},
        {"settings": {"speed": 3}},
        {"settings": {"threads": 1.5}},
        {"settings": {"threads": True}},
        {"settings": {"canary": 1}},
        {"settings": {"budget_s": math.nan}},
        {"settings": None},
    ],
)
def test_a_damaged_plan_is_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="^the plan of reports/run is damaged: .*; try: a new run$") as error:
        planned({**OLD_PLAN, **wrong}, Path("reports/run"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["device", "settings"])
def test_a_plan_that_lacks_what_there_is_no_default_for(key: str) -> None:
    with pytest.raises(UsageError, match=f"is damaged: '{key}'"):
        planned({name: value for name, value in OLD_PLAN.items() if name != key}, Path("reports/run"))


@pytest.mark.parametrize("key", ["kind", "model", "os", "abi"])
def test_another_device_is_refused(key: str) -> None:
    request = planned(OLD_PLAN, Path("reports/run"))
    plan = plan_of(request, PHONE)
    check_same_device(plan, dataclasses.replace(PHONE, name="serial", kernel="6.6", cores=7), Path("run"))
    check_same_device(OLD_PLAN, PHONE, Path("run"))
    with pytest.raises(UsageError, match=f"its {key} is another, was {getattr(PHONE, key)}; try: "):
        check_same_device(plan, dataclasses.replace(PHONE, **{key: "another"}), Path("run"))
