"""The test phone under Debian's adb client: what the real adbd does, what the phone's programs remember."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PHONE_FOLDER = Path(__file__).resolve().parents[1] / "phone"
sys.path.insert(0, str(PHONE_FOLDER))
import build_adbd  # noqa: E402
from phone import Phone  # noqa: E402

Adb = Callable[..., "subprocess.CompletedProcess[str]"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", autouse=True)
def phone_is_available() -> None:
    """Not while tests are collected: the first time it builds adbd."""
    if (reason := Phone.available()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    """Debian's adb with a server and a home of its own."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(free_port()), "HOME": str(home), "ADB_VENDOR_KEYS": ""}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["adb", *arguments], env=environment, capture_output=True, text=True, timeout=60)

    call.home = home  # type: ignore[attr-defined]
    call("start-server")
    yield call
    call("kill-server")


@pytest.fixture(scope="module")
def pixel(adb: Adb) -> Iterator[Phone]:
    with Phone(phone="pixel", cores=2) as phone:
        assert f"connected to {phone.serial}" in adb("connect", phone.serial).stdout
        yield phone


@pytest.fixture
def shell(adb: Adb, pixel: Phone) -> Callable[[str], subprocess.CompletedProcess[str]]:
    return lambda command: adb("-s", pixel.serial, "shell", command)


def test_shell_keeps_status_and_streams_apart(shell):
    done = shell("echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert shell("no-such-program").returncode == 127
    assert shell("sh -c 'kill -9 $$'").returncode == 137
    assert shell("sh -c 'kill -INT $$'; echo $?").stdout == "130\n"  # not ignored, as it is for a shell's background jobs


def test_everything_is_the_shell_users(adb, pixel, shell, tmp_path):
    assert shell("id -u").stdout.strip() == "2000"
    (tmp_path / "x").write_bytes(b"x")
    assert adb("-s", pixel.serial, "push", str(tmp_path / "x"), "/data/local/tmp/x").returncode == 0
    assert (pixel.root / "data/local/tmp/x").stat().st_uid == 2000
    assert adb("-s", pixel.serial, "push", str(tmp_path / "x"), "/system/bin/x").returncode != 0
    assert shell("cat /sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_cur_freq").returncode != 0
    assert shell("ls /sys/class/thermal").stdout == ""


def test_push_and_pull_5_mb(adb, pixel, tmp_path):
    data = random.Random(0).randbytes(5_000_000)
    there, back = tmp_path / "there €.bin", tmp_path / "back.bin"
    there.write_bytes(data)
    assert adb("-s", pixel.serial, "push", str(there), "/data/local/tmp/a b €.bin").returncode == 0
    assert hashlib.sha256((pixel.root / "data/local/tmp/a b €.bin").read_bytes()).digest() == hashlib.sha256(data).digest()
    assert adb("-s", pixel.serial, "pull", "/data/local/tmp/a b €.bin", str(back)).returncode == 0
    assert back.read_bytes() == data


def test_properties_and_services_are_the_recorded_ones(shell):
    assert shell("getprop ro.product.model").stdout == "Pixel 9\n"
    assert shell("getprop no.such.property").stdout == "\n"
    assert shell("getprop no.such.property fallback").stdout == "fallback\n"
    assert "[ro.soc.model]: [Tensor G4]\n" in shell("getprop").stdout
    assert "Thermal Status: 0\n" in shell("dumpsys thermalservice").stdout
    missing = shell("dumpsys nothing")
    assert (missing.stdout, missing.stderr) == ("", "Can't find service: nothing\n")
    assert "  level: 88\n" in shell("dumpsys battery").stdout


def test_settings_are_seen_and_undone(pixel, shell):
    assert pixel.setting("global", "stay_on_while_plugged_in") == "0"
    shell("svc power stayon true")
    assert pixel.setting("global", "stay_on_while_plugged_in") == "15"
    assert shell("settings get global stay_on_while_plugged_in").stdout == "15\n"
    shell("settings put global stay_on_while_plugged_in 0")
    assert pixel.setting("global", "stay_on_while_plugged_in") == "0"
    assert shell("settings get global no_such").stdout == "null\n"
    done = shell("settings put global new 'a b'; cmd settings get global new; settings delete global new")
    assert done.stdout == "a b\nDeleted 1 rows\n"
    assert pixel.setting("global", "new") is None
    assert "svc power stayon true" in pixel.log


def test_modes_are_seen(pixel, shell):
    assert shell("cmd power set-fixed-performance-mode-enabled true").returncode == 0
    assert (pixel.state / "fixed_performance").read_text() == "1\n"
    assert shell("dumpsys deviceidle disable; dumpsys deviceidle enabled").stdout.endswith("disabled\n0\n")
    shell("cmd thermalservice override-status 3")
    assert "Thermal Status: 3" in shell("dumpsys thermalservice").stdout
    shell("cmd thermalservice reset")
    assert "Thermal Status: 0" in shell("dumpsys thermalservice").stdout


def test_what_a_test_writes_is_what_the_phone_says(pixel, shell):
    (pixel.state / "proc/loadavg").write_text("9.00 8.00 7.00 1/100 99\n")
    assert shell("cat /proc/loadavg").stdout == "9.00 8.00 7.00 1/100 99\n"


def test_other_phones_say_no_in_androids_words(adb):
    for name, words in (("galaxy", "Failed to set FIXED_PERFORMANCE mode"), ("walleye", "Unknown command: set-fixed-perf")):
        with Phone(phone=name) as phone:
            adb("connect", phone.serial)
            done = adb("-s", phone.serial, "shell", "cmd power set-fixed-performance-mode-enabled true")
            assert done.returncode == 255 and words in done.stderr
            thermal = adb("-s", phone.serial, "shell", "dumpsys thermalservice")
            assert (thermal.stdout == "") == (name == "walleye")
            adb("disconnect", phone.serial)


def test_restart_ends_processes_and_changes_the_boot_id(adb, pixel, shell):
    before = shell("cat /proc/sys/kernel/random/boot_id").stdout.strip()
    shell("setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
    assert "sleep 1000" in shell("ps").stdout
    port = pixel.port
    pixel.restart()
    adb("disconnect", pixel.serial)
    adb("connect", pixel.serial)
    after = shell("cat /proc/sys/kernel/random/boot_id").stdout.strip()
    assert after == pixel.boot_id and len(before) == len(after) == 36 and before != after
    assert pixel.port == port and "sleep 1000" not in shell("ps").stdout
    assert (pixel.state / "fixed_performance").read_text() == "0\n"


def test_the_dead_are_taken_away(shell):
    """As init does: a process id whose program has ended is free, also where nobody waited for it."""
    pid = shell("setsid sh -c 'echo $$; exec >&- 2>&-; sleep 0.05' </dev/null").stdout.strip()
    assert shell(f"while kill -0 {pid}; do sleep 0.01; done 2>/dev/null; echo gone").stdout == "gone\n"


def test_unplugged_refuses(adb, pixel):
    pixel.unplug()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", pixel.port), timeout=5)
    pixel.restart()
    adb("disconnect", pixel.serial)
    assert "connected" in adb("connect", pixel.serial).stdout


def test_authentication_is_refused_then_accepted(adb):
    with Phone(require_auth=True) as phone:
        assert "failed to authenticate" in adb("connect", phone.serial).stdout
        assert f"{phone.serial}\tunauthorized" in adb("devices").stdout
        assert adb("-s", phone.serial, "shell", "id").returncode != 0
        adb("disconnect", phone.serial)
        phone.authorize(adb.home / ".android/adbkey.pub")
        adb("connect", phone.serial)
        adb("-s", phone.serial, "wait-for-device")
        assert adb("-s", phone.serial, "shell", "id -u").stdout.strip() == "2000"
        adb("disconnect", phone.serial)


def test_small_data_without_exec(adb, tmp_path):
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    (tmp_path / "run").write_text("#!/system/bin/sh\necho ran\n")
    with Phone(data="size=2m,noexec") as phone:
        adb("connect", phone.serial)
        full = adb("-s", phone.serial, "push", str(tmp_path / "big"), "/data/local/tmp/big")
        assert full.returncode != 0 and "No space left on device" in full.stdout + full.stderr
        adb("-s", phone.serial, "push", str(tmp_path / "run"), "/data/local/tmp/run")
        done = adb("-s", phone.serial, "shell", "rm -f /data/local/tmp/big; chmod 755 /data/local/tmp/run; /data/local/tmp/run")
        assert done.returncode == 126 and "ermission denied" in done.stderr
        assert phone.path("/data/local/tmp/run").read_text().startswith("#!")
        adb("disconnect", phone.serial)


def test_arm64_runs_under_qemu(adb):
    if (reason := Phone.available("arm64")) is not None:
        pytest.skip(reason)
    with Phone("arm64", "walleye") as phone:
        adb("connect", phone.serial)
        done = adb("-s", phone.serial, "shell", "uname -m; getprop ro.product.cpu.abi; grep -c 'CPU part' /proc/cpuinfo; "
                   "taskset 1 grep Cpus_allowed_list: /proc/self/status; exit 3")
        assert done.stdout.split() == ["aarch64", "arm64-v8a", "8", "Cpus_allowed_list:", "0"]
        assert done.returncode == 3
        adb("disconnect", phone.serial)


def test_phone_ends_with_the_process_that_started_it():
    program = (f"import sys; sys.path.insert(0, {str(PHONE_FOLDER)!r}); from phone import Phone; phone = Phone(); "
               "print(phone.port, phone.root, flush=True); sys.stdin.read()")
    environment = {**os.environ, "XDG_CACHE_HOME": str(build_adbd.CACHE_HOME)}  # where adbd is built already
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdin is not None and child.stdout is not None
    port, root = child.stdout.readline().split()
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    deadline = time.monotonic() + 10
    while Path(root).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(root).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5)


def test_ports_that_adb_servers_scan_are_refused():
    with pytest.raises(ValueError, match="5655"):
        Phone(port=5557)
    with pytest.raises(ValueError, match="galaxy, pixel, walleye"):
        Phone(phone="nexus")
