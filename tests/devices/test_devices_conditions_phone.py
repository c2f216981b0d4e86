"""Cores, conditions and what to watch of the three recorded phones, over the real adbd, and of phones that lack something."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from devices.adb.find import phone_at
from devices.adb.phone import AdbTransport
from devices.conditions import (
    Conditions,
    Gates,
    cpu_mask,
    online_cores,
    parse_watched,
    prepared,
    read_conditions,
    wait_until_quiet,
    watch_paths,
)
from devices.conditions import snapshot as snapshot_module
from devices.conditions.affinity import CPU
from devices.cores import cores_of
from devices.errors import NotQuiet
from devices.transport import CommandResult, OnOutput

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

SERVICES = ("thermal_status", "skin_c", "battery_c", "battery_level", "charging", "low_power")


@pytest.fixture(scope="module", autouse=True)
def available() -> None:
    if (reason := Phone.available()) is not None:
        pytest.skip(reason)


class Counted(AdbTransport):
    """Counts commands, and shows the phone's own affinity, which is else this machine's."""

    commands = 0

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        self.commands += 1
        pieces: list[bytes] = []
        try:
            return super().run(argv, timeout_s=timeout_s, on_output=pieces.append if on_output else None)
        finally:
            if on_output:
                on_output(re.sub(rb"(?m)^Cpus_allowed_list:.*$", b"Cpus_allowed_list:\t0-7", b"".join(pieces)))


def connect(phone: Phone) -> Counted:
    return Counted("phone", lambda: phone_at("127.0.0.1", phone.port, "phone").connect(10.0))


@pytest.fixture
def pixel() -> Iterator[Phone]:
    with Phone("x86_64", "pixel", cores=None) as phone:
        yield phone


CORES = {
    "pixel": {1: [7], 2: [6, 7], 4: [4, 5, 6, 7], 5: [3, 4, 5, 6, 7]},
    "galaxy": {1: [7], 2: [6, 7], 3: [5, 6, 7]},
    "walleye": {1: [7], 4: [4, 5, 6, 7], 5: [3, 4, 5, 6, 7], 99: list(range(8))},
}


@pytest.mark.parametrize("name", CORES)
def test_cores_of_the_recorded_phones(name: str) -> None:
    with Phone("x86_64", name, cores=None) as phone, connect(phone) as transport:
        assert online_cores(transport) == list(range(8)) and transport.commands == 1
        for threads, cores in CORES[name].items():
            assert cores_of(cpu_mask(transport, threads)) == cores
        assert transport.commands == 1 + len(CORES[name])
        (phone.root / CPU.lstrip("/") / "online").write_text("0-6\n")
        assert cores_of(cpu_mask(transport, 1)) == [6]
        assert cores_of(cpu_mask(transport, 2)) == [5, 6], "the biggest core is off"
        for path in (phone.root / CPU.lstrip("/")).glob("cpu[0-9]/cpu_capacity"):
            path.chmod(0o200)
        assert cores_of(cpu_mask(transport, 1)) == [6], "the clock where the capacity cannot be read"
        for path in (phone.root / CPU.lstrip("/")).glob("cpufreq/policy*/cpuinfo_max_freq"):
            path.write_text("$(id)\n")
        assert cores_of(cpu_mask(transport, 2)) == [5, 6], "all equal"


def test_affinity_is_really_asked(pixel: Phone) -> None:
    """Without the pretence above: the phone's processes can run where this machine lets them."""
    with phone_at("127.0.0.1", pixel.port, "phone").open() as transport:
        status = Path("/proc/self/status").read_text()
        assert online_cores(transport) == [core for core in range(8) if core in _allowed(status)]


def _allowed(status: str) -> set[int]:
    mask = re.search(r"Cpus_allowed:\s*([0-9a-f,]+)", status)
    assert mask is not None
    return set(cores_of(int(mask[1].replace(",", ""), 16) & (1 << 64) - 1))


EXPECTED = {
    "pixel": Conditions(
        0.42, 38.0, (820000,) * 4 + (357000,) * 3 + (700000,), thermal_status=0, skin_c=31.112, battery_c=29.1,
        battery_level=88, charging=True, low_power=False, runnable=0.0,
    ),
    "galaxy": Conditions(
        2.17, 40.1, (1248000,) * 6 + (652800,) * 2, thermal_status=0, skin_c=32.87, battery_c=31.2,
        battery_level=61, charging=True, low_power=False, runnable=1.0,
    ),
    "walleye": Conditions(
        9.12, 38.4, (1401600,) * 4 + (806400,) * 4, thermal_status=None, skin_c=None, battery_c=27.7,
        battery_level=74, charging=True, low_power=False, runnable=0.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_conditions_of_the_recorded_phones(name: str) -> None:
    with Phone("x86_64", name, cores=None) as phone, connect(phone) as transport:
        read = read_conditions(transport)
        assert transport.commands == 1
        assert read.boot_id == phone.boot_id and read.uptime_s is not None
        known = {field: getattr(read, field) for field in EXPECTED[name].__dataclass_fields__}
        assert Conditions(**known | {"boot_id": None, "uptime_s": None}) == EXPECTED[name]
        notes: list[str] = []
        assert len(wait_until_quiet(transport, Gates(), 0, pytest.fail, notes.append)) == 1
        assert notes == (["phone does not say its thermal status: taken as fine"] if name == "walleye" else [])
        transport.commands = 0
        paths = watch_paths(transport)
        assert transport.commands == 1
        seen = parse_watched(paths, [transport.read_texts(paths)[path] for path in paths])
        assert seen["load1"] == read.load1 and seen["battery_c"] == read.battery_c
        assert seen["temperature_c"] == (None if name == "pixel" else read.temperature_c)
        assert {read.clocks_khz[int(core)] for core in seen["clock_khz"]} == set(read.clocks_khz)
        assert set(seen["clock_khz"].values()) == set(read.clocks_khz)


def test_what_changes_on_the_phone_is_seen(pixel: Phone) -> None:
    with connect(pixel) as transport:
        for command in (
            ["cmd", "thermalservice", "override-status", "3"],
            ["settings", "put", "global", "low_power", "1"],
        ):
            assert transport.run(command).status == 0
        (pixel.state / "dumpsys/battery.txt").write_text("  level: 7\n  scale: 100\n  status: 3\n  temperature: 455\n")
        (pixel.state / "proc/loadavg").write_text("1.00 1.00 1.00 9/3215 12034\n")
        read = read_conditions(transport)
        assert (read.thermal_status, read.low_power, read.battery_level, read.charging) == (3, True, 7, False)
        assert (read.battery_c, read.runnable) == (45.5, 8.0)
        with pytest.raises(NotQuiet) as told:
            wait_until_quiet(transport, Gates(), 0, pytest.fail)
        for part in ("status 3, severe", "battery 7 %", "battery saver on", "8 other threads", "charge it"):
            assert part in str(told.value)
        assert "skin" not in str(told.value), "the skin is cool, and what phones throttle by"


# What a phone may lack.


def services(read: Conditions) -> list[object]:
    return [getattr(read, name) for name in SERVICES]


@pytest.mark.parametrize(
    "how", ["exec sleep 600", "trap '' TERM INT HUP; while :; do exec sleep 600; done", "cat /dev/zero"]
)
def test_a_dumpsys_that_does_not_end(pixel: Phone, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(snapshot_module, "SERVICES", snapshot_module.SERVICES.replace("KILL 6", "KILL 0.3"))
    (pixel.root / "system/bin/dumpsys").write_text(f"#!/system/bin/sh\n{how}\n")
    with connect(pixel) as transport:
        read = read_conditions(transport)
        assert services(read) == [None, None, 29.1, None, None, False], "the battery's temperature is a file, too"
        assert read.load1 == 0.42 and len(read.clocks_khz) == 8
        assert transport.run(["pgrep", "-f", "sleep 600"]).stdout == b""


def test_a_dumpsys_whose_children_outlive_it(pixel: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time limit ends only itself; that of the command ends all, and what was said before counts."""
    monkeypatch.setattr(snapshot_module, "LIMIT_S", 2.0)
    monkeypatch.setattr(snapshot_module, "SERVICES", snapshot_module.SERVICES.replace("KILL 6", "KILL 0.3"))
    dumpsys = pixel.root / "system/bin/dumpsys"
    dumpsys.write_text('#!/system/bin/sh\n[ "$3" = battery ] && exec cat /state/dumpsys/battery.txt\nsleep 600\n')
    with connect(pixel) as transport:
        read = read_conditions(transport)
        assert services(read) == [None, None, 29.1, 88, True, None] and read.runnable == 0.0
        assert transport.run(["pgrep", "-f", "sleep 600"]).stdout == b""


def test_services_that_say_anything(pixel: Phone) -> None:
    for tool, said in (("dumpsys", "head -c 300000 /dev/urandom"), ("settings", "head -c 300000 /dev/urandom")):
        (pixel.root / "system/bin" / tool).write_text(f"#!/system/bin/sh\n{said}\n")
    (pixel.state / "proc/loadavg").write_text("\n\n$(id) x/y\n")
    with connect(pixel) as transport:
        read = read_conditions(transport)
        assert (
            services(read) == [None, None, 29.1, None, None, None] and read.load1 is None and len(read.clocks_khz) == 8
        )
        with prepared(transport, pytest.fail) as knobs:
            assert [one["state"] for one in knobs] == ["set", "not available", "not available", "not available"]


@pytest.mark.parametrize("tool", ["dumpsys", "settings", "getprop", "timeout", "head", "sleep"])
def test_a_tool_that_is_missing(pixel: Phone, tool: str) -> None:
    (pixel.root / "system/bin" / tool).unlink()
    with connect(pixel) as transport:
        read = read_conditions(transport)
        assert read.load1 == 0.42 and len(read.clocks_khz) == 8 and read.boot_id == pixel.boot_id
        assert online_cores(transport) and len(watch_paths(transport)) == 5
        wait_until_quiet(transport, Gates(), 0, pytest.fail)
        with prepared(transport, lambda note: None):
            pass


def test_a_phone_that_shows_no_files(pixel: Phone) -> None:
    shutil.rmtree(pixel.root / "sys")
    with connect(pixel) as transport:
        read = read_conditions(transport)
        assert services(read) == [0, 31.112, 29.1, 88, True, False] and read.clocks_khz == (None,)
        assert watch_paths(transport) == ["/proc/loadavg"]
        assert cpu_mask(transport, 1) == 1 << 7, "what is allowed is still known"


def test_a_shell_that_is_denied(pixel: Phone) -> None:
    with connect(pixel) as transport:
        (pixel.root / "system/bin/sh").chmod(0o700)
        assert read_conditions(transport) == Conditions(None, None, (None,))
        assert (watch_paths(transport), online_cores(transport), cpu_mask(transport, 1)) == ([], [0], 1)
        wait_until_quiet(transport, Gates(), 0, pytest.fail)
        with prepared(transport, pytest.fail) as knobs:
            assert {one["state"] for one in knobs} == {"not available"}
