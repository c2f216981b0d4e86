"""The process that opens a runtime once for all its cases: that it does, and that nothing is lost where it cannot."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import devices.bundle
from devices.bundle import GLIBC, compile_c, find_library
from devices.discovery import cache_dir
from devices.errors import BundleError
from devices.runner import Case, CaseResult, format_job, parse_results, read_lines

MS = 1_000_000
HERE, NATIVE = Path(__file__).parent, Path(devices.bundle.__file__).parent / "native"


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake runtime whose opening FAKE_OPENING decides."""
    built = tmp_path_factory.mktemp("moody") / "libmoody.so"
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror", "-DMOODY"]
    target = f"{platform.machine()}-linux-gnu.{GLIBC}"
    compile_c(["-target", target, *flags, str(HERE / "fake_runtime.c")], built, cache_dir())
    return built


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How often a fake runtime was opened so far."""
    path = tmp_path / "opened"
    monkeypatch.setenv("FAKE_OPENED", str(path))
    return lambda: path.read_text().count("opened") if path.exists() else 0


def test_a_library_is_opened_once(bench: Any, opened: Any) -> None:
    result = bench.run(*(bench.case(f"c{n}", "ok 0", group=n // 3) for n in range(9)), canary=False)
    assert opened() == 1
    assert [case.failed for case in result.cases.values()] == [None] * 9
    assert len({case.open_ns for case in result.cases.values()}) == 1


def test_what_a_process_can_be_told_only_once_has_its_own(bench: Any, opened: Any, tmp_path: Path) -> None:
    other = tmp_path / "libother.so"
    shutil.copy(bench.library, other)
    core = max(os.sched_getaffinity(0))
    special = [{"library": str(other)}, {"cpu_mask": 1 << core}, {"memory_bytes": 1 << 30}]
    kinds = [{}, *special, {}, *special]
    result = bench.run(*(bench.case(f"c{n}", "ok 0", group=n % 2, **kind) for n, kind in enumerate(kinds)))
    assert opened() == 4
    assert [case.failed for case in result.cases.values()] == [None] * 8
    assert [result.cases[f"c{n}"].cpu_mask == 1 << core for n in (2, 6)] == [True, True]


def test_more_kinds_than_are_kept(bench: Any, opened: Any) -> None:
    result = bench.run(*(bench.case(f"c{n}", "ok 0", memory_bytes=(1 << 30) + (n % 12 << 20)) for n in range(24)))
    assert opened() == 8 + 2 * 4, "the others open it for themselves"
    assert [case.failed for case in result.cases.values()] == [None] * 24


def test_memory_of_one_case_is_not_taken_from_another(bench: Any) -> None:
    cases = [bench.case(f"c{n}", "bomb-run 2" if n else "ok 0", memory_bytes=256 << 20) for n in range(3)]
    result = bench.run(*cases, bench.case("free", "bomb-run 2"))
    assert [bool(case.failed) for case in result.cases.values()] == [False, True, True, False]


@pytest.mark.parametrize(
    ("mood", "said"), [("crash", "SIGSEGV"), ("exit", "status 3 while loading"), ("hang", "no answer within 0.3 s")]
)
def test_a_library_that_cannot_be_opened_costs_its_cases_only(
    mood: str, said: str, bench: Any, moody: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_OPENING", mood)
    bad = [bench.case(f"bad{n}", "ok 0", library=str(moody), limit_ns=300 * MS) for n in range(2)]
    result = bench.run(bench.case("before", "ok 0"), *bad, bench.case("after", "ok 0", group=1))
    assert [len(bench.samples(result.cases[name])) for name in ("before", "after")] == [3, 3]
    for case in bad:
        assert said in (result.cases[case.id].failed or "")
    assert opened() == 1 + 3, "once for all, then each for itself"


def test_a_library_that_starts_threads_is_opened_by_each_case(
    bench: Any, moody: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_OPENING", "thread")
    result = bench.run(*(bench.case(f"c{n}", "ok 0", library=str(moody)) for n in range(3)))
    assert [case.failed for case in result.cases.values()] == [None] * 3
    assert opened() == 1 + 3


def test_a_killed_nursery_costs_the_cases_that_are_loaded(bench: Any, opened: Any) -> None:
    loaded = [bench.case(name, "ok 1000", max_samples=50_000, max_ns=60_000 * MS) for name in "ab"]
    later = [bench.case(name, "ok 0", group=1) for name in "cd"]
    (bench.folder / "job").write_text(format_job([*loaded, *later], str(bench.results)))
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"samples 2 " not in process.stdout.readline():
            pass
        nursery, *_workers = sorted(pid for pid in bench.running() if pid != process.pid)
        os.kill(nursery, signal.SIGKILL)
        process.stdout.read()
    assert process.returncode == 0
    result = parse_results(read_lines(str(bench.results)))
    assert result.complete
    assert ["SIGKILL" in (result.cases[name].failed or "") for name in "ab"] == [True, True]
    assert [result.cases[name].failed for name in "cd"] == [None, None]
    assert opened() == 3


# The real runtimes.


def real(runtime: str) -> str:
    try:
        return str(find_library(runtime).path)
    except BundleError as error:
        pytest.skip(str(error))


def tiny_model(runtime: str) -> bytes:
    """The model that the runner warms a runtime up with, as its source has it."""
    if runtime == "litert":
        text = re.search(r"tiny_model\[\][^=]*= \{([0-9, \n]*)\}", (NATIVE / "litert.c").read_text())
        assert text
        return bytes(int(number) for number in text[1].replace("\n", " ").split(",") if number.strip())
    text = re.search(r"tiny_model\[\] =\n([^;]*);", (NATIVE / "ort.c").read_text())
    assert text
    literals = "".join(re.findall(r'"([^"]*)"', text[1]))
    return literals.encode("ascii").decode("unicode_escape").encode("latin-1")


def test_the_tiny_models_are_what_their_comments_say() -> None:
    import onnx
    from ai_edge_litert import schema_py_generated as schema

    model = onnx.load_from_string(tiny_model("onnxruntime"))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    graph = schema.ModelT.InitFromPackedBuf(tiny_model("litert"), 0).subgraphs[0]
    assert (list(graph.inputs), list(graph.outputs), list(graph.operators)) == ([0], [0], [])
    assert list(graph.tensors[0].shape) == [1]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_real_runtime_is_opened_once_and_says_nothing_to_anybody(
    runtime: str, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home))
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    model = tmp_path / "model"
    model.write_bytes(tiny_model(runtime))
    cases = [
        Case(f"c{n}", str(model), runtime, real(runtime), group=n, warmup_ns=0, block_ns=0, max_samples=3)
        for n in range(4)
    ]
    results: list[CaseResult] = list(bench.run(*cases).cases.values())
    assert [case.failed for case in results] == [None] * 4
    assert len({case.open_ns for case in results}) == 1
    assert 0 < min(case.load_ns or 0 for case in results) < (results[0].open_ns or 0)
    assert list(home.iterdir()) == [], "no telemetry is kept to be sent"
