"""A recorded phone with fewer cores, and the edits of the build: no adbd is needed for these."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
import build_adbd
import debian
import roots

BIG_KHZ = {"pixel": 3105000, "galaxy": 2323200, "walleye": 2457600}
LAYOUT = {"pixel": [4, 3, 1], "galaxy": [6, 2], "walleye": [4, 4]}


def recorded(phone: str) -> tuple[list[str], str]:
    folder = roots.HERE / "recorded" / phone
    return (folder / "sys.txt").read_text().splitlines(), (folder / "proc/cpuinfo").read_text()


def values(lines: list[str], ending: str) -> dict[str, str]:
    return {path: value for path, _, value in (line.partition(":") for line in lines) if path.endswith(ending)}


@pytest.mark.parametrize("phone", roots.PHONES)
def test_all_cores_are_the_recording(phone):
    lines, cpuinfo = recorded(phone)
    kept = roots.keep(lines, None)
    assert len(kept) == 8 and roots.fit_sys(lines, kept) == lines and roots.fit_cpuinfo(cpuinfo, kept) == cpuinfo
    assert [len(cpus.split()) for cpus in values(lines, "/affected_cpus").values()] == LAYOUT[phone]


@pytest.mark.parametrize("cores", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("phone", roots.PHONES)
def test_fewer_cores_are_a_whole_phone_with_the_biggest_last(phone, cores):
    lines, cpuinfo = recorded(phone)
    kept = roots.keep(lines, cores)
    fitted, text = roots.fit_sys(lines, kept), roots.fit_cpuinfo(cpuinfo, kept)
    assert list(kept.values()) == list(range(cores)) and len(fitted) == len(set(fitted))
    assert [f"processor\t: {core}" in text for core in range(9)] == [core < cores for core in range(9)]
    assert text.count("CPU part") == cores and ("Hardware" in text) == ("Hardware" in cpuinfo)
    policies = values(fitted, "/affected_cpus")
    listed = sorted(int(cpu) for cpus in policies.values() for cpu in cpus.split())
    assert listed == list(range(cores)) and len(policies) == min(cores, len(LAYOUT[phone]))
    assert all(f"policy{cpus.split()[0]}/" in path for path, cpus in policies.items())
    last = next(path for path, cpus in policies.items() if str(cores - 1) in cpus.split())
    assert int(values(fitted, "/cpuinfo_max_freq")[last.replace("affected_cpus", "cpuinfo_max_freq")]) == BIG_KHZ[phone]
    assert values(fitted, "cpu/online")["/sys/devices/system/cpu/online"] == ("0" if cores == 1 else f"0-{cores - 1}")


def test_properties_tell_the_abi_that_runs_and_whether_keys_count():
    assert "ro.product.cpu.abi=arm64-v8a\n" in roots.properties("walleye", "arm64", False)
    text = roots.properties("walleye", "x86_64", True)
    assert "ro.product.cpu.abi=x86_64\n" in text and "arm64-v8a" not in text and "ro.adb.secure=1\n" in text
    assert "ro.product.model=Pixel 2\n" in text and "ro.soc" not in text


def test_edits_fail_loudly_in_other_sources(tmp_path):
    for name, old, _ in build_adbd.EDITS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"before\n{old}\nafter\n")
    build_adbd.edit(tmp_path)
    for name, _, new in build_adbd.EDITS:
        assert (tmp_path / name).read_text() == f"before\n{new}\nafter\n"
    first = tmp_path / build_adbd.EDITS[0][0]
    for text in ("", build_adbd.EDITS[0][1] * 2):
        first.write_text(text)
        with pytest.raises(debian.Unavailable, match="times, not once"):
            build_adbd.edit(tmp_path)


def test_a_missing_program_is_a_reason_of_one_line():
    with pytest.raises(debian.Unavailable, match="there is no no-such-program here"):
        debian.call(["no-such-program"])
    with pytest.raises(debian.Unavailable, match="ended with 3: why"):
        debian.call(["sh", "-c", "echo first >&2; echo why >&2; exit 3"])
