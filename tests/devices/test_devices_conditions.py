"""Cores and conditions, read from whatever a device writes into its files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devices.conditions import Conditions, cpu_mask, online_cores, read_conditions
from devices.conditions.affinity import CPU, STATUS
from devices.conditions.ask import ask, read_files
from devices.conditions.snapshot import conditions_of
from devices.cores import MAX_CORES, biggest_cluster, choose_mask, cores_of, parse_cpu_list
from devices.host import HostTransport

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fake_device import FakeDevice as Files


def phone(speeds: Sequence[object], source: str = "cpu_capacity", **more: str) -> Files:
    files = {f"{CPU}/online": f"0-{len(speeds) - 1}\n"}
    files |= {f"{CPU}/cpu{core}/{source}": f"{speed}\n" for core, speed in enumerate(speeds)}
    return Files({**files, **more})


# parse_cpu_list


def as_list(cores: set[int]) -> str:
    """The kernel's way of writing it: runs with a dash."""
    ordered, parts = sorted(cores), []
    while ordered:
        first = last = ordered.pop(0)
        while ordered and ordered[0] == last + 1:
            last = ordered.pop(0)
        parts.append(f"{first}-{last}" if last > first else str(first))
    return ",".join(parts)


@given(st.sets(st.integers(0, 200), min_size=1))
def test_cpu_list_round_trip(cores: set[int]) -> None:
    assert parse_cpu_list(as_list(cores) + "\n") == sorted(core for core in cores if core < MAX_CORES)


@given(st.text(max_size=20))
def test_cpu_list_of_any_text_is_read_or_refused(text: str) -> None:
    try:
        cores = parse_cpu_list(text)
    except ValueError:
        return
    assert cores == sorted(set(cores)) and all(0 <= core < MAX_CORES for core in cores)
    assert set(text.strip()) <= set("0123456789-,")


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", [0]), ("0-3", [0, 1, 2, 3]), ("0-1,4,6-7\n", [0, 1, 4, 6, 7]), ("3,1,1-2", [1, 2, 3]), ("62-70", [62, 63])],
)
def test_cpu_lists(text: str, cores: list[int]) -> None:
    assert parse_cpu_list(text) == cores


@pytest.mark.parametrize(
    "text", ["", "\n", "a", "-1", "1-", "3-1", "0-3-5", "0,", ",0", "0 1", "1_0", "+1", "0x1", "٣", "0-99999999999"]
)
def test_what_is_no_cpu_list(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of cores"):
        parse_cpu_list(text)


# choose_mask

LAYOUTS = {
    "1+3+4": ([300, 300, 300, 300, 800, 800, 800, 1024], {1: [7], 2: [6, 7], 4: [4, 5, 6, 7], 5: [3, 4, 5, 6, 7]}),
    "2+6": ([350] * 6 + [1024] * 2, {1: [7], 2: [6, 7], 3: [5, 6, 7]}),
    "4+4": ([400] * 4 + [1024] * 4, {1: [7], 4: [4, 5, 6, 7], 8: list(range(8)), 99: list(range(8))}),
    "big first": ([1024] * 2 + [350] * 6, {1: [1], 2: [0, 1], 3: [0, 1, 7]}),
    "equal": ([1] * 2, {0: [1], 1: [1], 2: [0, 1], 3: [0, 1]}),
}


@pytest.mark.parametrize("source", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, source: str) -> None:
    speeds, wanted = LAYOUTS[layout]
    for threads, cores in wanted.items():
        assert cores_of(cpu_mask(phone(speeds, source), threads)) == cores
        assert cores_of(choose_mask(dict(enumerate(speeds)), threads)) == cores


@given(st.dictionaries(st.integers(0, 63), st.integers(1, 5), min_size=1), st.integers(1, 70))
def test_mask_properties(speeds: dict[int, int], threads: int) -> None:
    chosen = cores_of(choose_mask(speeds, threads))
    assert set(chosen) <= set(speeds)
    assert len(chosen) == min(threads, len(speeds))
    others = [speeds[core] for core in speeds if core not in chosen]
    assert max(others, default=0) <= min(speeds[core] for core in chosen), "no faster core is left out"


@given(st.dictionaries(st.integers(0, 63), st.integers(1, 5), min_size=1))
def test_biggest_cluster_is_what_its_own_size_of_threads_gets(speeds: dict[int, int]) -> None:
    cluster = biggest_cluster(speeds)
    assert {speeds[core] for core in cluster} == {max(speeds.values())}
    assert cores_of(choose_mask(speeds, len(cluster))) == cluster


@given(st.sets(st.integers(0, 63)))
def test_cores_of_is_the_inverse(cores: set[int]) -> None:
    assert cores_of(sum(1 << core for core in cores)) == sorted(cores)


# What the device says.


def test_capacity_goes_before_frequency() -> None:
    files = phone([1024, 300]).files | phone([100, 900], "cpufreq/cpuinfo_max_freq").files
    assert cores_of(cpu_mask(Files(files), 1)) == [0]


@pytest.mark.parametrize("bad", ["", "fast", "-5", "1.5", "²", "9" * 5000, "1 2"])
def test_a_speed_that_is_no_number_makes_all_cores_equal(bad: str) -> None:
    assert cores_of(cpu_mask(phone([1024, bad, 300]), 1)) == [2]


def test_cores_that_are_off_are_not_used() -> None:
    files = dict(phone([300, 300, 1024, 1024]).files)
    assert cores_of(cpu_mask(Files({**files, f"{CPU}/online": "0-2\n"}), 2)) == [1, 2]


def test_cores_that_a_container_may_not_use_are_not_used() -> None:
    allowed = "Name:\thead\nCpus_allowed:\t5\nCpus_allowed_list:\t0,2\nMems_allowed_list:\t0\n"
    device = phone([1, 1, 1, 1], **{STATUS: allowed})
    assert online_cores(device) == [0, 2]
    assert cores_of(cpu_mask(device, 8)) == [0, 2]


def test_no_core_below_64_gives_no_mask() -> None:
    assert cpu_mask(phone([1] * 128, **{STATUS: "Cpus_allowed_list:\t64-127\n"}), 1) == 0


def test_a_server_with_more_cores_than_a_mask_has_bits() -> None:
    assert cores_of(cpu_mask(phone([1] * 128), 2)) == [62, 63]


@pytest.mark.parametrize("online", [None, "", "all of them", "\0", "0-3-5", "²"])
def test_unknown_cores_are_core_zero(online: str | None) -> None:
    files = {} if online is None else {f"{CPU}/online": online}
    assert online_cores(Files(files)) == [0]
    assert cpu_mask(Files(files), 4) == 1


@given(st.dictionaries(st.sampled_from([f"{CPU}/online", STATUS, *phone([1, 1]).files]), st.text(max_size=30)))
def test_any_text_gives_a_mask(files: dict[str, str]) -> None:
    assert 0 <= cpu_mask(Files(files), 2) < 1 << 64


FILES = {
    f"{CPU}/online": "0-2\n",
    "/proc/loadavg": "0.52 0.58 0.59 1/389 12345\n",
    "/proc/uptime": "12424.98 90000.11\n",
    "/proc/sys/kernel/random/boot_id": "90f5b588-5587-46d6-bf6f-8d66d9b613c4\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "<unknown>\n",
    "/sys/class/thermal/thermal_zone0/temp": "41200\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-0-0-usr\n",
    "/sys/class/thermal/thermal_zone1/temp": "-274000\n",
    "/sys/class/thermal/thermal_zone2/temp": "999999\n",
    "/sys/class/thermal/thermal_zone3/temp": "38000\n",
    "/sys/class/thermal/thermal_zone4/temp": "88\n",
    "/sys/class/thermal/thermal_zone4/type": "soc\n",
}


def test_conditions_of_files_alone() -> None:
    device = Files(FILES)
    boot_id, uptime_s = "90f5b588-5587-46d6-bf6f-8d66d9b613c4", 12424.98
    wanted = Conditions(0.52, 41.2, (1800000, None, None), boot_id=boot_id, uptime_s=uptime_s)
    assert read_conditions(device) == wanted
    assert device.commands == 1


def test_one_command_for_the_mask() -> None:
    device = phone([1, 2, 3])
    assert cores_of(cpu_mask(device, 1)) == [2] and device.commands == 1


def test_conditions_of_a_device_that_says_nothing() -> None:
    assert read_conditions(Files({})) == Conditions(None, None, (None,))


def test_a_core_that_is_off_keeps_its_place() -> None:
    clocks = {f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": f"{core + 1}00000" for core in (0, 1, 3, 70)}
    read = conditions_of({**clocks, f"{CPU}/online": "0-1,3"})
    assert read.clocks_khz == (100000, 200000, None, 400000)


@pytest.mark.parametrize(
    ("looks", "runnable"),
    [
        ("1/389", 0.0),
        ("4/2418", 3.0),
        ("0/389", 0.0),
        ("1/9\n9.1 9.0 8.9 3/9\n9.1 9.0 8.9 9/9", 2.0),
        ("1/9\n9.1 9.0 8.9 4/9", 1.5),
        ("-1/9", None),
        ("x/9", None),
    ],
)
def test_threads_that_want_a_core_are_counted_without_the_reader(looks: str, runnable: float | None) -> None:
    lines = "\n".join(f"{line} 12034" for line in f"9.12 9.40 9.31 {looks}".splitlines())
    assert conditions_of({"running": lines}).runnable == runnable


HOSTILE = ["", "\n", "nan", "inf", "²", "9" * 5000, "\0", "41.2.3", "-", "0x10", "1e5", "٣٣"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts(text: str) -> None:
    assert read_conditions(Files(dict.fromkeys(FILES, text))) == Conditions(None, None, (None,))


NAMES = st.sampled_from(
    [*FILES, "running", "battery", "thermalservice", "low_power", "/sys/class/power_supply/battery/temp"]
)


@example({"/sys/devices/system/cpu/online": "0\x1f"})
@given(st.dictionaries(NAMES, st.text(max_size=60) | st.sampled_from([*FILES.values(), "0-63", "1 2 3 4", "291"])))
def test_any_text_gives_conditions(answers: dict[str, str]) -> None:
    read = conditions_of(answers)
    assert len(read.clocks_khz) <= MAX_CORES
    assert read.temperature_c is None or 0 < read.temperature_c < 130


def test_this_machine(host: HostTransport) -> None:
    assert online_cores(host) == sorted(core for core in os.sched_getaffinity(0) if core < 64)
    assert set(cores_of(cpu_mask(host, 1))) <= os.sched_getaffinity(0)
    read = read_conditions(host)
    assert read.load1 is not None and read.load1 >= 0
    assert len(read.clocks_khz) > max(online_cores(host))


def test_no_service_of_android_is_asked_on_a_host(host: HostTransport, tmp_path: Path, monkeypatch) -> None:
    for name in ("dumpsys", "settings", "cmd", "input"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho called >>{tmp_path}/log\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    read = read_conditions(host)
    assert (read.thermal_status, read.battery_level, read.low_power, read.runnable) == (None, None, None, None)
    assert not (tmp_path / "log").exists()


# The scripts that ask.


def test_files_are_read_whole_and_apart(host: HostTransport, tmp_path: Path) -> None:
    contents = {
        "plain": "42\n",
        "no end": "42",
        "empty": "",
        "marks": "\n0123 /etc/passwd\n-n x\n$(touch here) `id` ; *\n",
        "spaces": "  a  b \n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "long").write_text("".join(f"{line}\n" for line in range(500)))
    read = read_files(host, [f"{tmp_path}/[a-z]*", f"{tmp_path}/none", "/proc/self/status"])
    own = {path.removeprefix(f"{tmp_path}/"): text for path, text in read.items()}
    assert own.pop("long").splitlines() == [str(line) for line in range(100)]
    assert own.pop("/proc/self/status").startswith("Name:")
    assert own == {name: content.strip() for name, content in contents.items()}


def test_names_are_no_words_and_no_patterns(host: HostTransport, tmp_path: Path) -> None:
    name = "a * [b] $(id) `id` '\"x"
    (tmp_path / name).write_text("1")
    (tmp_path / "b").write_text("2")
    (tmp_path / "a\\n").write_text("3")
    assert read_files(host, [f"{tmp_path}/a*"]) == {f"{tmp_path}/{name}": "1"}
    assert read_files(host, [f"{tmp_path}/a * ?b?*"]) == {f"{tmp_path}/{name}": "1"}, "a pattern with spaces is one"


def test_an_answer_that_hangs_is_left_out_and_those_before_it_count(host: HostTransport) -> None:
    script = "say one; echo 1; say two; echo 2; sleep 600; say three; echo 3"
    assert ask(host, script, limit_s=1) == {"one": "1"}


def test_the_first_answer_of_a_name_counts_and_not_what_is_before_the_mark(host: HostTransport) -> None:
    assert ask(host, 'echo x; say a; echo 1; say a; echo 2; say ""', limit_s=60) == {"a": "1", "": ""}


def test_a_device_without_a_shell_answers_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask(HostTransport(tmp_path), "say a", limit_s=60) == {}
    assert read_conditions(HostTransport(tmp_path)) == Conditions(None, None, (None,))
