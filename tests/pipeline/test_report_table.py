"""The page of a latency table: all that it should say, everything escaped, quick for large tables, whole in a browser."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import runpy
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency_luts import Context, Entry, LatencyTable, OpKey, Staircase
from latency_luts.staircase import Jump
from pipeline.errors import StorageError
from pipeline.report import table_page
from pipeline.report.table_page import page_text, render_table
from pipeline.report.text import percent

OUTLINE = runpy.run_path(str(Path(__file__).with_name("test_report_page.py")))["outline"]
BROWSER = runpy.run_path(str(Path(__file__).with_name("test_report_browser.py")))
CONTEXT = Context(
    device="bench 1", soc="EPYC", os_build="Debian 12", abi="x86_64", runtime="litert", runtime_version="2.3.0",
    runtime_sha256="ab" * 32, delegate="xnnpack", threads=1, cpu_mask="0x2", clocks="not readable",
    handset_version="0.1.0", created="2026-11-21T12:00:00Z", simulated=False,
)  # fmt: skip
SECTIONS = ["made", "stairs", "intervals", "error", "families", "longest"]


def conv(c_out: int, size: int = 14, **more: Any) -> OpKey:
    return OpKey("conv2d", (1, 16, size, size), c_out, dtype="float32", **more)


def entry(key: OpKey, ns: float, half: float = 0.01) -> Entry:
    return Entry(key, ns, (ns * (1 - half), ns * (1 + half)), (round(ns), round(ns) + 1), ("net",), "Conv2D")


def table(*more: Entry, **context: Any) -> LatencyTable:
    """Steps of 8 channels from 1 to 96, another kernel with 400, and more."""
    noise = np.random.default_rng(1).normal(1, 0.002, 97)
    some = [entry(conv(n), float(noise[n]) * (2000 + 900 * -(-n // 8))) for n in range(1, 97)]
    return LatencyTable(dataclasses.replace(CONTEXT, **context), (*some, entry(conv(400), 47_000.0), *more))


def test_has_its_sections_and_numbers() -> None:
    whole = table(entry(OpKey("mean", (1, 96, 7, 7), dtype="float32"), 700.0, half=0.3))
    found = OUTLINE(page_text(whole, {}))
    assert [tag["id"] for where, name, tag in found.tags if name == "section"] == SECTIONS
    assert "98 kernels in litert on bench 1, half of them told to ±1.0 % or better" in found.text[""]
    for words in ("EPYC", "litert", "2.3.0", "ab" * 32, "xnnpack", "0x2", "not readable", "0.1.0", CONTEXT.created):
        assert words in found.text["made"]
    assert "99 %" in found.text[""]  # told to 2 % or better
    tested = sum(each.tested for each in whole.family_errors)
    rms = math.sqrt(sum(each.rms**2 * each.tested for each in whole.family_errors) / tested)
    assert percent(rms) in found.text["families"] and percent(rms) in found.text[""]
    assert found.count("svg", "stairs") == 3 and found.count("svg", "error") == 3  # a drawing, its window, its axis


def test_the_longest_kernels_stand_in_order_and_are_thirty() -> None:
    found = OUTLINE(page_text(table(), {}))
    keys = re.findall(r"out=(\d+)", found.text["longest"])
    assert keys[0] == "400" and len(keys) == table_page.LONGEST
    assert "47.0 µs" in found.text["longest"] and "46.5 µs – 47.5 µs" in found.text["longest"]


def test_a_staircase_is_drawn_on_its_densest_line() -> None:
    text = page_text(table(), {})
    section = text[text.index('id="stairs"') : text.index('id="intervals"')]
    assert "Steps of 8 in <code>c_out</code>, +" in section
    assert "In the other 0 families none was found" in section
    drawing = section[section.index("<svg") :]
    assert len(re.findall(r'<rect[^>]*class="apart"', drawing)) == 6  # every other of twelve steps
    (dots,) = re.findall(r'<path d="([^"]*)" class="dots sample"', drawing)
    assert dots.count("M") == 96  # the kernel with 400 channels is far away
    assert "out=96 " in section and "out=400 " not in section


def test_staircases_that_a_file_tells_need_not_be_in_its_rows() -> None:
    """They are stored beside the rows, and a file may say anything."""
    told = tuple(Staircase(f"no[family={n}]", "c_in", 8, (Jump(8, 1.2),), 0.5) for n in range(3))
    found = OUTLINE(page_text(LatencyTable(CONTEXT, table().entries, stored_staircases=told), {}))
    assert found.count("svg", "stairs") == 0
    assert "3 more without a drawing" in found.text["stairs"] and "no[family=2]" in found.text["stairs"]


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (entry(conv(8), 1000.0),),
        (entry(conv(8), 0.0),),
        tuple(entry(conv(n), 0.0) for n in range(1, 40)),
        tuple(entry(conv(n), 5000.0, half=0.0) for n in range(1, 40)),
        (entry(OpKey("reshape", (), dtype="float32"), 9e17), entry(conv(9), 1e-3)),
    ],
)
def test_tables_with_little_in_them_have_a_page_too(entries: tuple[Entry, ...]) -> None:
    text = page_text(LatencyTable(CONTEXT, entries), {})
    assert OUTLINE(text).open == []
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_hostile_texts_make_no_elements() -> None:
    attack = "</style><script>alert(1)</script>"
    key = OpKey("conv2d", (1, 16, 14, 14), 8, dtype="float32", detail=attack)
    evil = Entry(key, 9e6, (9e6, 9e6), (1,), (attack,), attack)
    about = {attack: attack, "command": "\x1b[31m\u202e" + attack, "notes": [attack]}
    about |= {"missing": [{"key": attack, "why": attack}]}
    found = OUTLINE(page_text(table(evil, device=attack, clocks=attack), about))
    assert {name for _, name, _ in found.tags} & {"script", "img", "iframe"} == set()
    assert all(attack in found.text[section] for section in ("made", "families", "longest", "missing", "notes"))
    assert not any(sign in "".join(found.text.values()) for sign in "\x1b\u202e")


def test_what_is_known_of_how_it_was_made_becomes_rows() -> None:
    about = {
        "schema_version": 1, "command": "handset lut build", "models": [f"m{n}" for n in range(20)], "bundles": 14,
        "profiler_ns": {"taken_off": 1234.5678, "low": float("nan")}, "rounds": [{"kernels": 64, "error": None}],
        "deep": functools.reduce(lambda inside, _: [inside], range(900), ["x"]),
        "missing": [{"key": f"add{n}", "why": "it ran as another kernel"} for n in range(300)], "notes": [],
    }  # fmt: skip
    found = OUTLINE(page_text(table(), about))
    made = " ".join(found.text["made"].split())
    assert "commandhandset lut build" in made and "schema version" not in made
    assert "m11 and 8 more" in made and "bundles14" in made and "m12" not in made
    assert "taken off 1234.57, low not known" in made and "kernels 64, error not known" in made
    assert "300 kernels that were asked for" in found.text["missing"] and found.count("li", "missing") == 200
    assert "notes" not in found.text


def test_simulated_numbers_say_so() -> None:
    assert "SIMULATED" in page_text(table(simulated=True), {}) and "SIMULATED" not in page_text(table(), {})


def test_families_that_were_not_judged_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other = [entry(conv(n, activation="relu"), 3000.0 + n) for n in range(1, 20)]
    assert "not judged" not in page_text(table(*other), {})
    monkeypatch.setattr(table_page, "JUDGED", 50)
    found = OUTLINE(page_text(table(*other), {}))
    assert "Judged are the 1 largest of 2 families" in found.text["error"]
    assert found.text["families"].count("not judged") == 1
    assert "in families that interpolate" not in found.text[""]


def many(count: int) -> LatencyTable:
    rng = np.random.default_rng(0)
    kinds = [
        {"kernel": (k, k), "padding": (k // 2,) * 4, "activation": act, "fused_add": add}
        for k in (1, 3, 5, 7) for act in ("none", "relu", "relu6", "hardswish") for add in (False, True)
    ]  # fmt: skip
    found: dict[OpKey, Entry] = {}
    while len(found) < count:
        c_in, c_out, size = (
            4 * int(rng.integers(1, 120)),
            4 * int(rng.integers(1, 120)),
            int(rng.choice([7, 14, 28, 56])),
        )
        more: Any = kinds[rng.integers(len(kinds))]
        key = OpKey("conv2d", (1, c_in, size, size), c_out, dtype="float32", **more)
        ns = (2000 + size * size * c_in * c_out * key.kernel[0] ** 2 / 30) * float(rng.normal(1, 0.02))
        found[key] = entry(key, ns, half=abs(float(rng.normal(0.015, 0.01))))
    return LatencyTable(CONTEXT, tuple(found.values()))


def test_ten_thousand_kernels_are_a_small_page_soon_made(tmp_path: Path) -> None:
    whole = many(10_000)
    begun = time.process_time()
    render_table(whole, tmp_path / "t.html")
    assert time.process_time() - begun < 3
    assert (tmp_path / "t.html").stat().st_size < 3e6


def test_an_older_page_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        render_table(table(), tmp_path / "absent" / "t.html")
    (tmp_path / "t.html").mkdir()
    with pytest.raises(StorageError):
        render_table(table(), tmp_path / "t.html")
    assert list(tmp_path.iterdir()) == [tmp_path / "t.html"]


def test_nothing_sticks_out_and_nothing_is_asked_for_in_a_browser(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    page = tmp_path / "t.html"
    long = entry(conv(8, detail="x" * 190), 9e6)
    render_table(table(long, device="d" * 900), page, about={"command": "c" * 3000})
    browser = BROWSER["Browser"](chromium, tmp_path / "profile")
    try:
        for width, scheme in ((1280, "light"), (400, "dark")):
            browser.open(page, width, scheme)
            browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            scroll_width, _, found = json.loads(browser.evaluate(BROWSER["STICKS_OUT"]))
            assert scroll_width <= width and found == []
            urls = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
            assert [url for url in urls if not url.startswith(("data:", page.as_uri()))] == []
            assert browser.said("Log.entryAdded", "Runtime.exceptionThrown") == []
    finally:
        browser.close()
