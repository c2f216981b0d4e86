"""What is wrong with a phone is told in one line, before minutes are spent, and the phone is left as it was."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.adb.direct import connect_tcp
from devices.bundle_store import bundle_for
from devices.discovery import cache_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

ON = runpy.run_path(str(Path(__file__).with_name("phone_bench.py")))
QUICK = ON["QUICK"]
ONNX = ("a.onnx", "--runtime", "onnxruntime", *QUICK)
Bench = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module", autouse=True)
def ready() -> None:
    ON["need"]()


@pytest.fixture(autouse=True)
def folder(digits_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ON["place"](digits_files, tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def pixel() -> Iterator[Phone]:
    with Phone("x86_64", "pixel", cores=2) as phone:
        yield phone


def fails(phone: Phone, status: int, *words: str, device: str = "") -> str:
    """The one line of a bench that fails with this status and leaves nothing: not here, not on the phone."""
    before = ON["settings"](phone)
    found, out, err = ON["bench"](*ONNX, *words, "--device", device or phone.serial)
    assert (found, out) == (status, ""), err
    assert ON["run_folders"](Path.cwd()) == []
    if phone._process is not None:
        ON["is_tidy"](phone, before)
    return "\n".join(err)


def works(phone: Phone, *words: str) -> dict[str, Any]:
    """The document of a bench that measures."""
    before = ON["settings"](phone)
    status, out, err = ON["bench"](*ONNX, *words, "--device", phone.serial, "--json", "out.json")
    assert status in (0, 4) and err == [] and "\x1b" not in out, err
    ON["is_tidy"](phone, before)
    found: dict[str, Any] = ON["document"](Path("out.json"))
    assert found["profiles"][0]["latency_ms"]["median"] > 0
    return found


def edit(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text())
    assert count, f"{path} has no {pattern}"
    path.write_text(text)


def test_a_phone_without_space_for_the_bundle() -> None:
    with Phone("x86_64", "pixel", cores=2, data="size=8m") as phone:
        line = fails(phone, 3)
        assert line.startswith("cannot push ") and "No space left on device; try: free space on the phone" in line
        assert not list(phone.path(ON["WORKDIR"]).rglob("*.so")), "nothing that takes up the rest of its space"


def test_a_phone_without_space_for_the_results() -> None:
    """The bundle fits, and the model; what the runner writes does not."""
    bundle, _ = bundle_for("linux", "x86_64", ["onnxruntime"], [], cache_dir())
    pages = [-(-path.stat().st_size // 4096) for path in (*(f.path for f in bundle.files.values()), Path("a.onnx"))]
    with Phone("x86_64", "pixel", cores=2, data=f"size={4 * sum(pages) + 280}k") as phone:
        line = fails(phone, 3)
        assert "No space left on device; try: free space on the " in line, line
        assert not line.startswith("cannot push a.onnx"), line


def test_a_folder_from_which_nothing_is_executed() -> None:
    with Phone("x86_64", "pixel", cores=2, data="noexec") as phone:
        line = fails(phone, 3)
        assert "does not let the runner be executed in /data/local/tmp/handset" in line
        assert line.endswith("try: a folder that is not mounted noexec")


def test_a_phone_of_an_abi_without_a_bundle(pixel: Phone) -> None:
    edit(pixel.state / "properties", r"(?m)^ro.product.cpu.abi=.*", "ro.product.cpu.abi=armeabi-v7a")
    assert fails(pixel, 3) == "there is no linux bundle for armeabi-v7a; there is for arm64-v8a, x86_64"


def test_a_phone_that_does_not_know_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connect_tcp.__kwdefaults__, "dialog_s", 0.3)
    with Phone("x86_64", "pixel", cores=2, require_auth=True) as phone:
        line = fails(phone, 3)
        assert f"{phone.serial} is unauthorized" in line and "Allow USB debugging" in line
        phone.authorize(Path(".android/adbkey.pub"))
        works(phone)


def test_a_phone_that_is_not_there(pixel: Phone) -> None:
    wrong = "127.0.0.1:1"
    assert fails(pixel, 3, device=wrong).startswith(f"no device named '{wrong}' ({wrong} was lost while connecting: ")
    assert fails(pixel, 3, device="pixel").startswith("no phone is 'pixel' (")
    pixel.unplug()
    line = fails(pixel, 3)
    assert line.startswith(f"no device named '{pixel.serial}'") and "; try: adb tcpip 5555" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--bundle", "host"), "the bundle 'host' is not for {}; try: --bundle linux or android"),
        (("--bundle", "linux,host"), "the bundle 'host' is not for {}; try: --bundle linux or android"),
        (("--bundle", "debian"), "there is no bundle 'debian'; try: host, linux, android"),
        (("--aar", "x.aar"), "--aar is for the android bundle only; try: --bundle android"),
        (("--runtime", "torch"), "there is no runtime 'torch'; try: onnxruntime, litert, tflite"),
    ],
)
def test_what_cannot_be_asked_of_a_phone(pixel: Phone, words: tuple[str, ...], expected: str) -> None:
    assert fails(pixel, 2, *words) == expected.format(pixel.serial)
    assert not (pixel.root / ON["WORKDIR"]).exists(), "nothing was sent"


def test_a_phones_bundle_is_not_for_the_host() -> None:
    status, out, err = ON["bench"](*ONNX, "--device", "host", "--bundle", "linux")
    assert (status, out, err) == (2, "", ["the bundle 'linux' is not for host; try: --bundle host"])


SKIN = r"(mValue=)[0-9.]+(, mType=3)"
GATES = {
    "battery": ("battery.txt", r"level: \d+", "level: 5", "battery 5 % (at least 20)", "charge it"),
    "skin": ("thermalservice.txt", SKIN, r"\g<1>50.0\2", "skin 50.0 °C (at most 40)", "let it cool"),
    "throttled": (
        "thermalservice.txt", r"Thermal Status: 0", "Thermal Status: 3",
        "thermal status 3, severe (at most 0)", "let it cool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
def test_a_phone_that_is_not_fit(pixel: Phone, gate: str) -> None:
    name, pattern, new, expected, remedy = GATES[gate]
    edit(pixel.state / "dumpsys" / name, pattern, new)
    waiting, line = fails(pixel, 4, "--settle", "1").split("\n")
    assert waiting == f"waiting up to 1 s: {expected}"
    ignore = f"try: {remedy}, --settle SECONDS, --ignore-conditions"
    assert line == f"{pixel.serial} is not fit to be measured on after 1 s: {expected}; {ignore}"
    if gate == "battery":
        found = works(pixel, "--ignore-conditions")
        assert found["command"].endswith(" --ignore-conditions")
        assert found["device_conditions"]["trace"][0]["battery_level"] == 5


def test_a_phone_that_becomes_fit_is_measured(pixel: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pixel.state / "dumpsys/battery.txt"
    charged = path.read_text()
    edit(path, r"level: \d+", "level: 5")

    def seconds(deadline: float) -> Iterator[float]:
        yield 600.0
        path.write_text(charged)

    monkeypatch.setattr("devices.conditions.gates._seconds", seconds)
    status, _, err = ON["bench"](*ONNX, "--device", pixel.serial)
    assert status in (0, 4) and err == ["waiting up to 600 s: battery 5 % (at least 20)"]


def test_a_phone_that_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Android 9, and a kernel that hides its clocks."""
    with Phone("x86_64", "walleye", cores=2) as phone:
        for path in (phone.root / "sys/devices/system/cpu").rglob("scaling_cur_freq"):
            path.unlink(missing_ok=True)
        found = works(phone)
        first = found["device_conditions"]["trace"][0]
        assert (first["thermal_status"], first["skin_c"], first["clock_khz"]) == (None, None, {})
        assert first["battery_level"] is not None


def test_a_service_that_hangs(pixel: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own limit ends it, as often as it is asked; what it does not say is not known."""
    dumpsys = pixel.root / "system/bin/dumpsys"
    dumpsys.write_text("#!/system/bin/sh\nexec sleep 600\n")
    for module, name in (("scripts", "READ"), ("scripts", "SET"), ("scripts", "UNDO"), ("snapshot", "SERVICES")):
        script = sys.modules[f"devices.conditions.{module}"].__dict__[name]
        home = "snapshot" if module == "snapshot" else "prepare"
        monkeypatch.setattr(f"devices.conditions.{home}.{name}", script.replace("KILL 6", "KILL 0.3"))
    found = works(pixel)
    first = found["device_conditions"]["trace"][0]
    assert (first["battery_level"], first["thermal_status"], first["low_power"]) == (None, None, False)
    assert found["device_conditions"]["set"][2]["state"] == "not available"


def test_hostile_text_from_a_phone(pixel: Phone, folder: Path) -> None:
    red, title = "\x1b[31mred\x1b[0m\x07", "\x1b]0;t\x07"
    edit(pixel.state / "properties", r"(?m)^ro.product.model=.*", f"ro.product.model=<script>alert(1)</script>{red}")
    edit(
        pixel.state / "properties", r"(?m)^ro.product.manufacturer=.*", f"ro.product.manufacturer={title}<img src=x>\n]: ["
    )
    edit(pixel.state / "properties", r"(?m)^ro.build.version.release=.*", "ro.build.version.release=" + "9" * 5000)
    (pixel.state / "proc/loadavg").write_text("nonsense \x1b[2J 1/0\n")
    (pixel.state / "dumpsys/battery.txt").write_text("level: \x1b[31m99999999999999999999\nlevel: <b>\n")
    found = works(pixel)
    assert "<script>" in found["device"]["model"] and found["device"]["model"].isprintable()
    assert len(found["device"]["os"]) < 300
    first = found["device_conditions"]["trace"][0]
    assert (first["load1"], first["runnable"], first["battery_level"]) == (None, None, None)
    (run,) = ON["run_folders"](folder)
    page = (run / "index.html").read_text()
    assert "<script" not in page and "<img" not in page and "\x1b" not in page and "&lt;script&gt;" in page
