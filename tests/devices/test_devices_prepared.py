"""A phone is left as it was, whatever happens: proved on its state, over the real adbd."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.adb.find import phone_at
from devices.adb.phone import AdbTransport
from devices.conditions import prepare as prepare_module
from devices.conditions import prepared
from devices.errors import DeviceLost
from devices.host import HostTransport
from devices.transport import CommandResult

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone
from proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
JOURNAL = "data/local/tmp/handset/conditions.json"
PHONES = ("pixel", "galaxy", "walleye")
SCALES = ("window_animation_scale", "transition_animation_scale", "animator_duration_scale")
NAMES = ["fixed performance", "stay awake", "doze off", "animations off"]


@pytest.fixture(scope="module", autouse=True)
def available() -> None:
    if (reason := Phone.available()) is not None:
        pytest.skip(reason)


@pytest.fixture(params=PHONES)
def phone(request: pytest.FixtureRequest) -> Iterator[Phone]:
    with Phone("x86_64", request.param) as phone:
        yield phone


@pytest.fixture
def pixel() -> Iterator[Phone]:
    with Phone("x86_64", "pixel") as phone:
        yield phone


def connect(phone: Phone | Proxy, patience_s: float = 10.0) -> AdbTransport:
    return phone_at("127.0.0.1", phone.port, "phone").open(patience_s)


def state(phone: Phone) -> dict[str, str]:
    """All that knobs can change, and whether a journal lies there."""
    folder = phone.state / "settings"
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    for name in ("fixed_performance", "deviceidle"):
        found[name] = (phone.state / name).read_text()
    found["workdir"] = str(sorted(path.name for path in (phone.root / JOURNAL).parent.glob("*")))
    return found


def set_up(phone: Phone) -> dict[str, str]:
    """The state before, with our folder there, which stays."""
    with connect(phone) as transport:
        transport.run(["mkdir", "-p", transport.workdir])
    return state(phone)


def is_set(phone: Phone) -> bool:
    values = [phone.setting("global", name) for name in ("stay_on_while_plugged_in", *SCALES)]
    fixed = (phone.state / "fixed_performance").read_text() == ("1\n" if phone.phone == "pixel" else "0\n")
    return values == ["7", "0", "0", "0"] and (phone.state / "deviceidle").read_text() == "0\n" and fixed


def put(phone: Phone, name: str, value: str) -> None:
    (phone.state / "settings/global" / name).write_text(value + "\n")


def test_normal_end(phone: Phone) -> None:
    before, notes = set_up(phone), []
    with connect(phone) as transport, prepared(transport, notes.append) as knobs:
        assert is_set(phone) and (phone.root / JOURNAL).exists()
        assert [one["name"] for one in knobs] == NAMES
        works = phone.phone == "pixel"
        assert [one["state"] for one in knobs] == ["set" if works else "not available", "set", "set", "set"]
        assert "input keyevent KEYCODE_WAKEUP" in phone.log
        said = {"galaxy": "Failed to set FIXED_PERFORMANCE mode", "walleye": "Unknown command"}
        assert works or said[phone.phone] in knobs[0]["details"]
    assert state(phone) == before and notes == []
    if phone.phone == "walleye":
        assert not any(name in key for name in SCALES for key in before), "what was not set is not set again"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DeviceLost])
def test_an_exception(phone: Phone, error: type[BaseException]) -> None:
    before = set_up(phone)
    with connect(phone) as transport, pytest.raises(error):
        with prepared(transport, pytest.fail):
            assert is_set(phone)
            raise error("in the middle")
    assert state(phone) == before


def test_a_link_that_is_cut_and_comes_back(phone: Phone) -> None:
    """The undo itself makes a new link: nothing is left to the next run."""
    before = set_up(phone)
    with Proxy(phone.port) as proxy, connect(proxy) as transport, pytest.raises(DeviceLost):
        with prepared(transport, pytest.fail):
            transport.run(["sh", "-c", "echo; sleep 600"], timeout_s=60, on_output=lambda data: proxy.cut())
    assert state(phone) == before


def test_a_link_that_is_gone_is_left_to_the_next_run_from_anywhere(phone: Phone) -> None:
    before, notes = set_up(phone), []
    with Proxy(phone.port) as proxy, connect(proxy, patience_s=2) as transport, prepared(transport, notes.append):
        proxy.close()
    assert is_set(phone) and (phone.root / JOURNAL).exists()
    (note,) = notes
    assert "keeps for now what was set on it" in note and "refused" in note and "the next run undoes it" in note
    told: list[str] = []
    with connect(phone) as transport, prepared(transport, told.append):
        assert is_set(phone)
    assert state(phone) == before
    assert told == [f"undid what an earlier run left on phone: {', '.join(NAMES)}"]


@pytest.mark.parametrize("direction", ["to_phone", "from_phone"])
@pytest.mark.parametrize("count", [900, 2500, 5000, 8000, 12000])
def test_a_cut_anywhere_in_the_preparing(pixel: Phone, count: int, direction: str) -> None:
    """Whatever was done by then, the state is as before, at once or after the next run."""
    before = set_up(pixel)
    with Proxy(pixel.port) as proxy, connect(proxy, patience_s=5) as transport:
        proxy.cut_after(count, direction)  # type: ignore[arg-type]
        with contextlib.suppress(DeviceLost), prepared(transport, lambda note: None):
            pass
    with connect(pixel) as transport, prepared(transport, lambda note: None, touch=False):
        pass
    after = state(pixel)
    assert {**after, "workdir": ""} == {**before, "workdir": ""} and "conditions.json'" not in after["workdir"]


KILLED = """
import sys, time
from devices.adb.find import phone_at
from devices.conditions import prepared
with phone_at("127.0.0.1", int(sys.argv[1]), "phone").open() as transport, prepared(transport, print):
    print("ready", flush=True)
    time.sleep(600)
"""


def start_run(phone: Phone) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", KILLED, str(phone.port)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_host_that_is_killed(phone: Phone) -> None:
    before = set_up(phone)
    with start_run(phone) as process:
        process.kill()
    assert is_set(phone)
    told: list[str] = []
    with connect(phone) as transport, prepared(transport, told.append, touch=False) as knobs:
        assert state(phone) == before, "undone before anything else"
        assert [(one["name"], one["state"]) for one in knobs] == [(name, "not touched") for name in NAMES]
    assert state(phone) == before and len(told) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_until_it_ends(pixel: Phone, number: signal.Signals) -> None:
    """Ctrl-C again and again while it is undone: it is undone, and the process ends by the signal."""
    slow = pixel.root / "system/bin/settings"
    slow.write_text(slow.read_text().replace("verb=$1", "sleep 0.2\nverb=$1", 1))
    before = set_up(pixel)
    with start_run(pixel) as process:
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        while "settings put global stay_on_while_plugged_in 0" not in pixel.log:
            assert process.poll() is None and time.monotonic() < deadline, "the undo does not begin"
            time.sleep(0.01)
        for _ in range(5):
            process.send_signal(number)
        process.communicate(timeout=60)
    assert state(pixel) == before
    assert process.returncode == -number if number == signal.SIGTERM else process.returncode != 0


def test_a_signal_during_the_undo_counts_after_it(pixel: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    before, undo = set_up(pixel), prepare_module._undo

    def interrupted(*arguments: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return undo(*arguments)  # type: ignore[arg-type]

    handler = signal.getsignal(signal.SIGINT)
    with connect(pixel) as transport, pytest.raises(KeyboardInterrupt):
        with prepared(transport, pytest.fail):
            monkeypatch.setattr(prepare_module, "_undo", interrupted)
    assert state(pixel) == before and signal.getsignal(signal.SIGINT) is handler


def test_a_restart_in_the_middle(phone: Phone) -> None:
    """Settings outlive it, the rest does not; the run's own end undoes what is left."""
    before = set_up(phone)
    with connect(phone) as transport, prepared(transport, pytest.fail):
        phone.restart()
        assert phone.setting("global", "stay_on_while_plugged_in") == "7"
    assert state(phone) == before


def test_a_restart_after_a_killed_host(phone: Phone) -> None:
    """What the user set since then, and the restart undid, is not undone a second time."""
    before = set_up(phone)
    with start_run(phone) as process:
        process.kill()
    phone.restart()
    for name, value in (("fixed_performance", "1\n"), ("deviceidle", "0\n")):
        (phone.state / name).write_text(value)
    told: list[str] = []
    with connect(phone) as transport, prepared(transport, told.append, touch=False):
        pass
    assert state(phone) == {**before, "fixed_performance": "1\n", "deviceidle": "0\n"}
    assert told == ["undid what an earlier run left on phone: stay awake, animations off"]


def test_what_the_user_changed_meanwhile_stays(phone: Phone) -> None:
    before = set_up(phone)
    with connect(phone) as transport, prepared(transport, pytest.fail):
        put(phone, SCALES[0], "1.5")
        put(phone, "stay_on_while_plugged_in", "3")
    after = state(phone)
    assert after.pop(f"global/{SCALES[0]}") == "1.5\n" and after.pop("global/stay_on_while_plugged_in") == "3\n"
    assert after == {key: value for key, value in before.items() if key in after}
    assert not (phone.root / JOURNAL).exists()


def test_what_is_as_wanted_is_not_touched(pixel: Phone) -> None:
    (pixel.state / "deviceidle").write_text("0\n")
    put(pixel, "stay_on_while_plugged_in", "15")
    put(pixel, SCALES[1], "0.0")
    before = set_up(pixel)
    with connect(pixel) as transport, prepared(transport, pytest.fail) as knobs:
        assert [one["state"] for one in knobs] == ["set", "as wanted", "as wanted", "set"]
        assert SCALES[1] not in knobs[3]["details"]
        assert pixel.setting("global", SCALES[1]) == "0.0"
    assert state(pixel) == before
    assert not any("stay_on" in line and "put" in line for line in pixel.log)


@pytest.mark.parametrize(
    "value", ["1; touch /data/local/tmp/x", "$(touch /data/local/tmp/x)", "--user 0", "9" * 5000, "\n", "é"]
)
def test_a_value_that_could_not_be_put_back_is_left_alone(pixel: Phone, value: str) -> None:
    put(pixel, "stay_on_while_plugged_in", value)
    put(pixel, SCALES[2], value)
    before = set_up(pixel)
    with connect(pixel) as transport, prepared(transport, pytest.fail) as knobs:
        assert [one["state"] for one in knobs] == ["set", "not available", "set", "not available"]
        assert all(one["details"].isprintable() and len(one["details"]) <= 120 for one in knobs)
        assert pixel.setting("global", SCALES[0]) == "1.0", "all or nothing of a knob"
    assert state(pixel) == before
    assert not (pixel.root / "data/local/tmp/x").exists()


BAD = {
    "no JSON": b"{",
    "huge": b'{"schema_version": 1, "x": "' + b"x" * 3_000_000,
    "empty": b"",
    "bytes": bytes(range(256)),
    "hostile": b'{"schema_version": 1, "boot_id": null, "entries": '
    b'{"stay_on_while_plugged_in": {"old": "1; touch /data/local/tmp/x", "new": "0"}}}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_journal_is_thrown_away(pixel: Phone, name: str) -> None:
    before = set_up(pixel)
    (pixel.root / JOURNAL).write_bytes(BAD[name])
    told: list[str] = []
    with connect(pixel) as transport, prepared(transport, told.append):
        assert is_set(pixel)
    assert state(pixel) == before and not (pixel.root / "data/local/tmp/x").exists()
    assert len(told) == 1 and told[0].startswith("threw away a damaged note of an earlier run on phone: ")


def test_a_journal_that_cannot_be_written_means_that_nothing_is_changed(pixel: Phone) -> None:
    set_up(pixel)
    (pixel.root / JOURNAL).mkdir()
    (pixel.root / JOURNAL / "x").mkdir()
    before, told = state(pixel), []
    with connect(pixel) as transport, prepared(transport, told.append, touch=True) as knobs:
        assert {one["state"] for one in knobs} == {"not touched"}
        assert state(pixel) == before
    assert told


def test_a_disk_that_is_full_means_that_nothing_is_changed() -> None:
    with Phone("x86_64", "pixel", data="size=64k") as phone:
        before, told = state(phone), []
        with connect(phone) as transport:
            transport.run(["sh", "-c", "mkdir -p /data/local/tmp/handset; cat /dev/zero >/data/local/tmp/full"])
            with prepared(transport, told.append) as knobs:
                assert {one["state"] for one in knobs} == {"not touched"}
            assert not transport.read_texts([f"/{JOURNAL}"])
        assert {**state(phone), "workdir": ""} == {**before, "workdir": ""}
        assert len(told) == 1 and "nothing could be written on it" in told[0]


def test_a_service_that_is_away_at_the_end_keeps_the_journal(pixel: Phone) -> None:
    before, told = set_up(pixel), []
    settings = pixel.root / "system/bin/settings"
    works = settings.read_text()
    with connect(pixel) as transport, prepared(transport, told.append):
        settings.write_text('#!/system/bin/sh\necho "cmd: Can\'t find service: settings" >&2; exit 20\n')
    assert (pixel.root / JOURNAL).exists() and len(told) == 1
    with connect(pixel) as transport, prepared(transport, told.append) as knobs:
        assert {one["state"] for one in knobs} == {"not touched"}, "nothing more is set on top of it"
    assert "could not undo" in told[1] and (pixel.root / JOURNAL).exists()
    settings.write_text(works)
    with connect(pixel) as transport, prepared(transport, told.append):
        pass
    assert state(pixel) == before


@pytest.mark.parametrize("tool", ["settings", "dumpsys", "cmd", "input"])
def test_a_tool_that_is_missing(pixel: Phone, tool: str) -> None:
    (pixel.root / "system/bin" / tool).unlink()
    before = set_up(pixel)
    with connect(pixel) as transport, prepared(transport, pytest.fail) as knobs:
        states = dict(zip(NAMES, (one["state"] for one in knobs), strict=True))
    gone = {"settings": ["stay awake", "animations off"], "dumpsys": ["doze off"], "cmd": ["fixed performance"]}
    assert [name for name, is_so in states.items() if is_so == "not available"] == gone.get(tool, [])
    assert state(pixel) == before


def test_a_tool_that_hangs(pixel: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at its own limit, or with all at the limit of the command; a hang is not taken for undone."""
    before, told = set_up(pixel), []
    (pixel.root / "system/bin/cmd").write_text("#!/system/bin/sh\nsleep 600\n")
    monkeypatch.setattr(prepare_module, "LIMIT_S", 1.5)
    monkeypatch.setattr(prepare_module, "UNDO_LIMIT_S", 1.5)
    with connect(pixel) as transport, prepared(transport, told.append) as knobs:
        assert {one["state"] for one in knobs} == {"not available"}
        assert transport.run(["pgrep", "-f", "sleep 600"], timeout_s=30).stdout == b"", "nothing is left running"
    assert (pixel.root / JOURNAL).exists() and len(told) == 1
    (pixel.root / "system/bin/cmd").write_text("#!/system/bin/sh\nexit 255\n")
    monkeypatch.undo()
    with connect(pixel) as transport, prepared(transport, told.append):
        pass
    assert state(pixel) == before


def test_round_trips(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, set, undo: one command each; besides, three to describe the phone and one that ends the push of the journal."""
    set_up(phone)
    with connect(phone) as transport:
        run, scripts = transport.run, []

        def counted(argv: list[str], **settings: object) -> CommandResult:
            scripts.append(argv)
            return run(argv, **settings)  # type: ignore[arg-type]

        monkeypatch.setattr(transport, "run", counted)
        with prepared(transport, pytest.fail):
            assert len(scripts) == 6
        assert len(scripts) == 7


def test_nothing_is_done_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = HostTransport(tmp_path / "work")
    monkeypatch.setattr(host, "run", lambda *arguments, **settings: pytest.fail("a command"))
    monkeypatch.setattr(host, "push", lambda *arguments: pytest.fail("a push"))
    with prepared(host, pytest.fail) as knobs:
        assert knobs == []
    assert list(tmp_path.iterdir()) == []
