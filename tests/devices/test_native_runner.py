"""The real runner against a runtime that does what its model file says: what is timed, when, and in which order."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Any

import pytest

from devices.runner import CaseResult, RunnerResult, format_job, parse_results, read_lines

MS = 1_000_000


# What a good case gives.


def test_samples_are_never_shorter_than_the_work(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 2000", max_samples=5, block_samples=2)).cases["a"]
    assert case.failed is None
    assert len(bench.samples(case)) == 5
    assert all(ns >= 2 * MS for ns in bench.samples(case))
    assert sorted(bench.samples(case))[0] < 100 * MS
    assert case.load_ns is not None and case.load_ns > 0
    assert case.peak_memory_bytes is not None and case.peak_memory_bytes > 100_000
    assert case.inputs == ({"name": "input", "bytes": 16, "shape": [1, 4]},)


def test_a_sample_lies_between_its_start_and_the_next_start(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 1000", max_samples=6, block_samples=6)).cases["a"]
    (block,) = bench.measured(case)
    for i in range(5):
        assert block.start_ns[i] + block.sample_ns[i] + block.canary_ns[i + 1] <= block.start_ns[i + 1]
    assert all(count >= 0 for count in block.preempted)
    assert all(0 <= core < 4096 for core in block.core)
    assert all(khz is None or khz > 0 for khz in block.clock_khz)


def test_warmups_are_apart(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 100", warmup_samples=4, max_samples=5)).cases["a"]
    assert [(block.warmup, len(block.sample_ns)) for block in case.blocks] == [(True, 4)] + [(False, 1)] * 5
    assert case.blocks[0].start_ns[-1] < case.blocks[1].start_ns[0]


def test_warmup_lasts_as_long_as_asked(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 1000", warmup_ns=100 * MS, max_samples=1), canary=False).cases["a"]
    assert 2 <= len(case.blocks[0].sample_ns) <= 100
    assert len(bench.samples(case)) == 1


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        ({"max_samples": 7, "block_samples": 3}, [3, 3, 1]),
        ({"max_samples": 7, "block_ns": 10_000 * MS}, [7]),
        ({"max_samples": 1}, [1]),
        ({"max_samples": 0}, []),
        ({"max_samples": 2, "min_samples": 9}, [1, 1]),
        ({"max_samples": 9, "min_samples": 4, "max_ns": 1}, [1, 1, 1, 1]),
        ({"max_samples": 9, "min_samples": 4, "max_ns": 1, "block_samples": 3}, [3, 3]),
        ({"max_samples": 9, "min_samples": 0, "max_ns": 0}, []),
        ({"max_samples": 2, "block_samples": 0}, [1, 1]),
        ({"max_samples": 40_000, "block_samples": 20_000, "min_samples": 2, "max_ns": 1}, [16_384]),
    ],
)
def test_counts_are_obeyed(settings: dict[str, int], blocks: list[int], bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 0", **settings), canary=False).cases["a"]
    assert [len(block.sample_ns) for block in bench.measured(case)] == blocks


def test_budget_counts_the_time_inside_inferences(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 5000", max_samples=99, max_ns=12 * MS, warmup_samples=4)).cases["a"]
    assert 1 <= len(bench.samples(case)) <= 3
    assert sum(bench.samples(case)) >= 12 * MS > sum(bench.samples(case)[:-1])


def test_block_lasts_as_long_as_asked(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 1000", max_samples=999, block_ns=100 * MS, max_ns=1), canary=False).cases["a"]
    (block,) = bench.measured(case)
    assert 2 <= len(block.sample_ns) <= 100


def test_canary_goes_before_each_sample_and_after_the_last(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 100", max_samples=4, block_samples=2)).cases["a"]
    assert case.canary
    assert all(ns > 1000 for block in case.blocks for ns in (*block.canary_ns, block.last_canary_ns))


def test_canary_off(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 100"), canary=False).cases["a"]
    assert case.canary == ""
    assert not any(ns for block in case.blocks for ns in (*block.canary_ns, block.last_canary_ns))


def test_cpu_mask_is_applied_and_read_back(bench: Any) -> None:
    allowed = sorted(core for core in os.sched_getaffinity(0) if core < 64)
    cases = [bench.case(f"core{core}", "ok 100", cpu_mask=1 << core) for core in allowed[-2:]]
    everything = sum(1 << core for core in allowed)
    result = bench.run(*cases, bench.case("any", "ok 100"))
    for case in cases:
        assert result.cases[case.id].cpu_mask == case.cpu_mask
        cores = {core for block in result.cases[case.id].blocks for core in block.core}
        assert cores == {case.cpu_mask.bit_length() - 1}
    assert result.cases["any"].cpu_mask == everything


def test_cpu_mask_of_absent_cores(bench: Any) -> None:
    if 63 in os.sched_getaffinity(0):
        pytest.skip("this machine has a core 63")
    case = bench.run(bench.case("a", "ok 100", cpu_mask=1 << 63)).cases["a"]
    assert case.failed is not None and "cannot run on cpu mask 0x8000000000000000" in case.failed


def test_what_a_runtime_prints_goes_to_the_log(bench: Any) -> None:
    log = bench.folder / "log"
    case = bench.case("a", "ok 100", threads=3, delegate="builtin", profile=True, log=str(log))
    job = format_job([case], str(bench.results))
    ended = bench.start(job)
    assert ended.stderr == b"" and b"option" not in ended.stdout
    said = log.read_text()
    assert 'option xnnpack: num_threads = 3\nkernel_mode = "builtin"' in said
    assert "option runtime_options_string: enable_profiling = true" in said
    assert "a runtime that talks to stderr" in said


def test_progress_is_printed(bench: Any) -> None:
    ended = bench.start(format_job([bench.case("a", "ok 1000", max_samples=2)], str(bench.results)))
    lines = [line.split() for line in ended.stdout.decode().splitlines()]
    assert [line[:4] for line in lines] == [["case", "a", "samples", str(n)] for n in (0, 1, 2)]
    assert int(lines[-1][5]) >= 2 * MS


# Interleaving.


def order(bench: Any, result: RunnerResult) -> str:
    """The ids of the measured blocks as they happened."""
    starts = [(block.start_ns[0], case.id) for case in result.cases.values() for block in bench.measured(case)]
    return "".join(name for _, name in sorted(starts))


def test_cases_of_a_group_take_turns_in_a_rotating_order(bench: Any) -> None:
    cases = [bench.case(name, "ok 300", max_samples=6, block_samples=2) for name in "abc"]
    result = bench.run(*cases)
    assert order(bench, result) == "abc" + "bca" + "cab"
    warm = max(block.start_ns[-1] for case in result.cases.values() for block in case.blocks if block.warmup)
    assert warm < min(block.start_ns[0] for case in result.cases.values() for block in bench.measured(case))
    spans = sorted(
        (block.start_ns[0], block.start_ns[-1] + block.sample_ns[-1])
        for case in result.cases.values()
        for block in case.blocks
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "two ran at once"


def test_groups_run_one_after_another(bench: Any) -> None:
    cases = [
        bench.case(name, "ok 100", max_samples=2, group=group) for name, group in zip("abcd", (0, 0, 5, 0), strict=True)
    ]
    assert order(bench, bench.run(*cases)) == "ab" + "ba" + "cc" + "dd"


def test_a_case_that_has_enough_leaves_the_turns(bench: Any) -> None:
    few, many = bench.case("f", "ok 100", max_samples=1), bench.case("m", "ok 100", max_samples=4)
    assert order(bench, bench.run(few, many)) == "fmmmm"


# The profiler.


def test_kernels_of_each_sample(bench: Any) -> None:
    asked = bench.case("a", "ok 100", profile=True, warmup_samples=2, max_samples=4, block_samples=2)
    case = bench.run(asked).cases["a"]
    assert [run.sample for run in case.kernel_runs] == [0, 1, 2, 3]
    assert [run.us for run in case.kernel_runs] == [(70, 3), (70, 4), (70, 5), (70, 6)], "warm-ups are runs 1 and 2"
    assert {run.kernels for run in case.kernel_runs} == {case.kernel_runs[0].kernels}
    assert [(kernel.name, kernel.index, kernel.kind) for kernel in case.kernel_runs[0].kernels] == [
        ("Convolution", 0, 4),
        ("Softmax", 1, 2),
    ]
    assert [line["type"] for line in bench.lines()].count("kernel_list") == 1


def test_no_profile_no_kernels(bench: Any) -> None:
    assert bench.run(bench.case("a", "ok 100")).cases["a"].kernel_runs == []


def test_a_list_that_changes_is_written_again(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 100 changing", profile=True, max_samples=4)).cases["a"]
    assert [len(run.kernels) for run in case.kernel_runs] == [2, 3, 2, 3]
    assert all(len(run.kernels) == len(run.us) for run in case.kernel_runs)


def test_a_profiler_that_says_nothing(bench: Any) -> None:
    case = bench.run(bench.case("a", "ok 100 silent", profile=True)).cases["a"]
    assert case.failed is None
    assert [run.kernels for run in case.kernel_runs] == [(), (), ()]


def test_hostile_names_stay_valid_json(bench: Any) -> None:
    name = 'quote" back\\slash {} </script> <img>'
    case = bench.run(bench.case(name, "ok 100 hostile", profile=True)).cases[name]
    assert case.failed is None
    names = [kernel.name for kernel in case.kernel_runs[0].kernels]
    assert names[2] == '"quoted\\" \x01\n\r\t\x7f\ufffd\ufffd\x28</script>{}'
    assert names[3] == "x" * 500 and names[4] == ""
    assert all(line.isascii() for line in bench.results.read_bytes().splitlines())


# Inference on given inputs.


def infer(bench: Any, content: bytes) -> tuple[CaseResult, bytes]:
    given, answer = bench.folder / "input", bench.folder / "output"
    given.write_bytes(content)
    case = bench.run(bench.case("a", "ok 10", input=str(given), output=str(answer)), canary=False).cases["a"]
    return case, answer.read_bytes()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_infer_answers_every_input(count: int, bench: Any) -> None:
    content = os.urandom(16 * count)
    case, answer = infer(bench, content)
    assert (case.failed, answer) == (None, content)
    assert case.blocks == []
    assert case.outputs == ({"name": "output", "bytes": 16, "shape": [1, 4]},)


@pytest.mark.parametrize("size", [1, 15, 17, 31])
def test_infer_input_that_is_cut_short(size: int, bench: Any) -> None:
    case, answer = infer(bench, b"x" * size)
    assert case.failed is not None and "input ends inside an input" in case.failed
    assert len(answer) == size // 16 * 16


def test_infer_without_its_files(bench: Any) -> None:
    result = bench.run(
        bench.case("in", "ok 10", input="/no/such/input", output=str(bench.folder / "out")),
        bench.case("out", "ok 10", input="/dev/null", output="/no/such/folder/out"),
    )
    assert "cannot open /no/such/input" in (result.cases["in"].failed or "")
    assert "cannot write /no/such/folder/out" in (result.cases["out"].failed or "")


def test_inputs_repeat_under_one_seed_and_are_sane(bench: Any) -> None:
    def given(seed: int, words: str) -> bytes:
        log = bench.folder / "log"
        bench.run(bench.case("a", f"ok 10 tell {words}", log=str(log)), seed=seed)
        return bytes.fromhex(log.read_text().splitlines()[-1])

    assert given(1, "") == given(1, "") != given(2, "")
    floats = struct.unpack("<4f", given(1, ""))
    assert all(0 <= value < 1 for value in floats) and len(set(floats)) == 4
    assert max(given(1, "int8")[:4]) < 128 and given(1, "int8")[4:] == bytes(12)


def test_defaults_before_the_first_case_are_inherited(bench: Any) -> None:
    model = bench.case("a", "ok 100").model
    shared = f"model {model}\nruntime litert\nlibrary {bench.library}\nwarmup_samples 2\nmax_samples 0x3\n"
    ended = bench.start(f"handset-job 1\nresults {bench.results}\n{shared}case a\ncase b\nmax_samples 1\n")
    assert (ended.status, ended.stderr) == (0, b"")
    result = parse_results(read_lines(str(bench.results)))
    assert {case.id: len(bench.samples(case)) for case in result.cases.values()} == {"a": 3, "b": 1}


def test_many_cases_in_one_group(bench: Any) -> None:
    cases = [bench.case(f"case{n}", "ok 0", max_samples=2) for n in range(40)]
    result = bench.run(*cases, canary=False)
    assert all(len(bench.samples(case)) == 2 and case.failed is None for case in result.cases.values())
    assert len(result.cases) == 40
