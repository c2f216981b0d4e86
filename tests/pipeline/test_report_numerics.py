"""What the page and the terminal say of a device's answers, of bundles, and of documents that know neither."""

from __future__ import annotations

import io
import re
import runpy
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.report import checks, context, facts, render, terminal
from pipeline.report.document import read

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
Document = dict[str, Any]


@pytest.fixture
def result() -> Document:
    found: Document = SAMPLE["phone"]()
    return found


def page(result: Document, tmp_path: Path) -> dict[str, str]:
    """section -> its text; "" is what stands before the first one."""
    text = render(result, tmp_path / "index.html").read_text("utf-8")
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    found = {"": text.partition("<section")[0]}
    found |= dict(re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.DOTALL))
    return {name: unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", part))) for name, part in found.items()}


def table(result: Document) -> str:
    out = io.StringIO()
    terminal(result, file=out, width=80)
    return out.getvalue()


def test_answers_have_a_table_of_their_own(result: Document, tmp_path: Path) -> None:
    text = page(result, tmp_path)["parity"]
    good = r"mobilenet_v2 onnxruntime \(linux\) ✓ agree torch 3\.0e-07 0\.001 1\.000000 4/4 2\.4e-06 china, flower, seed 0,"
    assert re.search(good, text), text
    assert re.search(r"mobilenet_v2 litert \(android\) ✗ disagree torch 3\.1e-01 0\.001 0\.913000 2/4 3\.1e\+00", text)
    assert re.search(r"digits_cnn litert \(android\) ✓ agree torch 1\.8e-06 0\.001 1\.000000 360/360", text)


def test_each_case_says_it_in_a_line(result: Document, tmp_path: Path) -> None:
    text = page(result, tmp_path)["stability"]
    assert "numerics 3.0e-07 of torch, top-1 4/4" in text
    assert "numerics 3.1e-01 of torch, top-1 2/4" in text


def test_wrong_answers_are_marked_wherever_their_time_stands(result: Document, tmp_path: Path) -> None:
    text = page(result, tmp_path)
    why = "disagrees with torch on this device: error 0.31 of the largest output (bound 0.001), top-1 agrees for 2 of 4 inputs"
    assert f"WRONG ANSWERS mobilenet_v2 in litert (android) {why} . It was timed all the same" in text[""]
    assert "faster than in litert (android), whose answers are wrong" in text[""]
    assert text["latency"].count("✗ wrong answers") == 1
    lines = table(result).splitlines()
    assert any(re.match(r"mobilenet_v2 +litert \(android\).* mismatch$", line) for line in lines)
    assert any(line.startswith("mismatch  mobilenet_v2 in litert (android): disagrees with torch") for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_headline_of_a_wrong_case_says_so(result: Document) -> None:
    result["profiles"] = [result["profiles"][1]]
    assert ", not stable, wrong answers) in litert" in facts.headline(read(result))[0]


def test_agreeing_cases_have_no_marks(result: Document, tmp_path: Path) -> None:
    del result["profiles"][1]
    text = page(result, tmp_path)
    assert "WRONG" not in text[""] and "wrong answers" not in text["latency"] and "disagree" not in text["parity"]
    assert "mismatch" not in table(result)


def test_a_refused_case_is_a_failure_and_no_mismatch(result: Document, tmp_path: Path) -> None:
    """It was not timed, so there is no time to be warned of; its answers are in the table."""
    whole = result["profiles"][1]
    kept = ("network", "runtime", "bundle", "numerics", "artifact")
    result["profiles"][1] = {key: whole[key] for key in kept} | {"failed": "mobilenet_v2.litert disagrees with torch"}
    text = page(result, tmp_path)
    assert "WRONG" not in text[""] and "failed: mobilenet_v2.litert disagrees with torch" in text["latency"]
    assert "✗ disagree torch 3.1e-01" in text["parity"]
    assert not read(result).profiles[1].mismatch


def test_many_wrong_answers_do_not_bury_the_page(result: Document, tmp_path: Path) -> None:
    for one in result["profiles"]:
        one["numerics"]["agrees"] = False
    head = page(result, tmp_path)[""]
    assert head.count("WRONG ANSWERS") == 6 and "also from 2 more" in head


def test_what_is_not_finite_or_not_compared_is_said(result: Document, tmp_path: Path) -> None:
    nothing = {"max_abs_error": None, "relative_error": None, "cosine": None, "top1_agreement": None}
    result["profiles"][0]["numerics"] |= nothing | {"agrees": False}
    none = {"reference": "none: its input is int64", "inputs": 0, "input_names": [], "agrees": True}
    result["profiles"][1]["numerics"] |= nothing | none
    text = page(result, tmp_path)
    assert "disagrees with torch on this device: its answers are not finite numbers" in text[""]
    assert "✗ disagree torch not finite 0.001" in text["parity"]
    assert re.search(r"litert \(android\) not compared none: its input is int64 (resnet20|digits_cnn)", text["parity"])
    assert "numerics not compared: its input is int64" in text["stability"]
    assert "numerics not finite against torch" in text["stability"]


def test_a_profile_has_its_own_accuracy(result: Document) -> None:
    """Two delegates of one runtime share a row of the network; each profile's figure is its own."""
    result["profiles"][-1]["numerics"]["accuracy"]["device"] = 0.5
    assert [row.accuracy for row in checks.parity(read(result))][-2:] == ["96.9 %", "50.0 %"]
    assert " 50.0 % " in table(result)


def test_many_inputs_are_not_all_named(result: Document) -> None:
    result["profiles"][0]["numerics"]["input_names"] = [f"seed {i}" for i in range(10_000)]
    assert checks.numerics(read(result))[0].inputs.endswith("seed 6, seed 7, …")


def test_bundles_are_named_where_there_are_two(result: Document, tmp_path: Path) -> None:
    bench = read(result)
    assert [profile.label for profile in bench.profiles[:2]] == ["onnxruntime (linux)", "litert (android)"]
    assert ("bundle linux", "arm64-v8a, onnxruntime 1.31.1, SHA-256 " + "d4" * 8) in context.machine(bench)
    text = page(result, tmp_path)["context"]
    assert re.search(r"onnxruntime linux 1\.31\.1 a1a1a1a1a1", text)
    for one in result["profiles"]:
        one["bundle"] = "android"
    assert [profile.label for profile in read(result).profiles[:2]] == ["onnxruntime", "litert"]


def test_the_same_runtime_of_two_bundles_is_told_apart_without_its_delegate(result: Document) -> None:
    for one, bundle in zip(result["profiles"][:2], ("linux", "android"), strict=True):
        one |= {"runtime": "litert", "bundle": bundle, "delegate": "xnnpack", "threads": 1}
    assert [profile.label for profile in read(result).of("mobilenet_v2")] == ["litert (linux)", "litert (android)"]


def test_an_older_document_shows_none_of_it(tmp_path: Path) -> None:
    old = SAMPLE["sample"]()
    text = page(old, tmp_path)
    assert "On the device" not in text["parity"] and "numerics" not in text["stability"]
    assert "The device meanwhile" not in text["samples"] and "Bundle" not in text["context"]
    bench = read(old)
    assert checks.numerics(bench) == [] and bench.conditions is None and bench.bundles == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("relative_error", "small", "'small' as profiles[0].numerics.relative_error, not a finite number"),
        ("cosine", float("nan"), "profiles[0].numerics.cosine, not a finite number"),
        ("agrees", None, "nothing as profiles[0].numerics.agrees, not true or false"),
        ("inputs", None, "nothing as profiles[0].numerics.inputs, not a number"),
        ("input_names", [1], "1 as profiles[0].numerics.input_names[0], not a text"),
        ("reference", 3, "3 as profiles[0].numerics.reference, not a text"),
        ("accuracy", 1.0, "holds 1.0 at profiles[0].numerics.accuracy, not an object"),
    ],
)
def test_a_wrong_field_is_named(result: Document, name: str, value: object, words: str) -> None:
    result["profiles"][0]["numerics"][name] = value
    with pytest.raises(UsageError) as caught:
        read(result)
    assert words in str(caught.value)
