"""A bench on the test phone that is stopped in the middle, however it is stopped, and goes on where it was."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.discovery import open_device
from devices.errors import DeviceBusy
from devices.runner import parse_results, read_lines
from pipeline.recover import recover
from pipeline.settings import PROFILED

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone
from proxy import Proxy

ON = runpy.run_path(str(Path(__file__).with_name("phone_bench.py")))
CLI, QUICK, WORKDIR = ON["CLI"], ON["QUICK"], ON["WORKDIR"]
A, B = "a.onnxruntime", "b.litert"


@pytest.fixture(scope="module", autouse=True)
def ready() -> None:
    ON["need"]()


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("x86_64", "pixel", cores=2) as phone:
        yield phone


@pytest.fixture(autouse=True)
def folder(digits_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ON["place"](digits_files, tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("pipeline.launch.LOADED_AT_ONCE", 2)  # one network after the other
    return tmp_path


def in_the_middle(phone: Phone) -> bool:
    """The first network of a launch is done and the second is being timed."""
    done, _, rest = ON["results_on"](phone).partition(f'"type":"finished","case":"{A}{PROFILED}"')
    return f'"type":"finished","case":"{A}"' in done + rest and f'"type":"block","case":"{B}"' in rest


def is_timing(phone: Phone) -> bool:
    """A launch has samples of the first network."""
    return re.search(rf'"case":"{A}","block":[0-9]+,"warmup":false', ON["results_on"](phone)) is not None


def meanwhile(phone: Phone, act: Callable[[], object]) -> threading.Thread:
    """Acts as soon as the bench of this process is in the middle of a launch."""

    def watch() -> None:
        CLI["wait_until"](lambda: in_the_middle(phone), "the second network")
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def samples(cases: Any, case: str) -> list[int]:
    return [ns for block in cases[case].blocks if not block.warmup for ns in block.sample_ns]


def launches(run: Path) -> list[Any]:
    return [parse_results(read_lines(str(path))).cases for path in sorted(run.glob("launch-*.jsonl"))]


def resume_line(err: list[str], run: Path) -> list[str]:
    """The words after `handset` of the command that the last line says."""
    assert f"handset bench --resume reports/{run.name}" in err[-1], err
    return shlex.split(err[-1].rpartition("handset ")[2].partition(";")[0])


def goes_on(phone: Phone, before: dict[str, str], command: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The finished document of a resumed run, and what was said; the phone is as before."""
    status, _, err = ON["bench"](*command[1:], "--json", "out.json")
    assert status in (0, 4), err
    ON["is_tidy"](phone, before)
    document: dict[str, Any] = ON["document"](Path("out.json"))
    assert document["complete"] is True
    return document, err


def check_nothing_was_lost(document: dict[str, Any], run: Path) -> None:
    """What was finished before the stop is in the document and was not measured again; the rest was."""
    first, second = launches(run)
    assert first[A].finished and first[A + PROFILED].finished and not first[B].finished
    assert set(second) == {B, B + PROFILED}
    for profile in document["profiles"]:
        case = f"{profile['network']}.{profile['runtime']}"
        both = [ns for cases in (first, second) if case in cases for ns in samples(cases, case)]
        assert profile["samples_ns"] == both and profile["kernels"]
    assert CLI["half_written"](Path.cwd()) == []


def test_the_link_ends_in_a_launch_and_comes_back(phone: Phone) -> None:
    before = ON["settings"](phone)
    with Proxy(phone.port) as proxy:
        thread = meanwhile(phone, proxy.cut)
        status, out, err = ON["bench"]("a.onnx", "b.tflite", "--device", proxy.serial, *QUICK, launch_s=1.0)
        thread.join()
        (run,) = ON["run_folders"](Path.cwd())
        assert (status, out) == (3, "") and err[-2] == f"what was measured until then is in reports/{run.name}"
        assert err[-1].startswith(f"{proxy.serial} was lost while running ") and err[-1].count("; try: ") == 1
        ON["is_tidy"](phone, before)
        document, said = goes_on(phone, before, resume_line(err, run))
    assert not [line for line in said if "undid" in line]
    check_nothing_was_lost(document, run)


def test_the_phone_is_away_until_the_run_goes_on(phone: Phone) -> None:
    """What the cut launch measured lies on the phone; the resumed run brings it home, and undoes the settings."""
    before = ON["settings"](phone)
    with Proxy(phone.port) as proxy:
        port = proxy.port
        thread = meanwhile(phone, proxy.close)
        status, out, err = ON["bench"]("a.onnx", "b.tflite", "--device", proxy.serial, *QUICK, launch_s=1.0)
        thread.join()
    (run,) = ON["run_folders"](Path.cwd())
    assert (status, out) == (3, "") and launches(run) == []
    kept = f"127.0.0.1:{port} keeps for now what was set on it (fixed performance, stay awake, doze off, animations off): "
    assert len(err) == 4 and err[-2].startswith(kept), err
    assert ON["settings"](phone) != before
    CLI["wait_until"](lambda: not ON["processes"](phone), "the runner to end", 20)
    with Proxy(phone.port, port=port):
        document, said = goes_on(phone, before, resume_line(err, run))
    assert any(line.startswith("undid what an earlier run left on ") for line in said)
    check_nothing_was_lost(document, run)


def test_the_phone_restarts_in_a_launch(phone: Phone) -> None:
    before, boots = ON["settings"](phone), [phone.boot_id]
    thread = meanwhile(phone, phone.restart)
    status, out, err = ON["bench"]("a.onnx", "b.tflite", "--device", phone.serial, *QUICK, launch_s=1.0)
    thread.join()
    boots.append(phone.boot_id)
    (run,) = ON["run_folders"](Path.cwd())
    assert (status, out) == (3, ""), err
    document, _ = goes_on(phone, before, resume_line(err, run))
    assert document["device_conditions"]["boot_ids"] == boots and boots[0] != boots[1]
    first, *others = launches(run)
    assert others and first[A].finished and all(A not in cases for cases in others)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_process_is_stopped_in_a_launch(phone: Phone, number: signal.Signals) -> None:
    before = ON["settings"](phone)
    words = ("a.onnx", "--runtime", "onnxruntime", "--device", phone.serial, *QUICK)
    process = CLI["start"]("bench", *words, cwd=Path.cwd(), env=ON["environment"](Path.cwd()))
    CLI["wait_until"](lambda: process.poll() is not None or is_timing(phone), "the first samples")
    assert ON["settings"](phone) != before
    process.send_signal(number)
    status, out, err = CLI["finish"](process)
    (run,) = ON["run_folders"](Path.cwd())
    if number == signal.SIGKILL:
        assert status == -number and launches(run) == [] and ON["settings"](phone) != before
        CLI["wait_until"](lambda: not ON["processes"](phone), "the runner to end", 20)
        command = ["bench", "--resume", f"reports/{run.name}"]
    else:
        assert (status, out) == (130, "")
        ON["is_tidy"](phone, before)
        command = resume_line(err.splitlines(), run)
        assert CLI["error_line"](err).startswith("handset: stopped; what was measured is in ")
    document, said = goes_on(phone, before, command)
    assert said == ([f"undid what an earlier run left on {phone.serial}: {KNOBS}"] if number == signal.SIGKILL else [])
    first, *others = launches(run)
    assert samples(first, A) and len(others) == 1, "a launch that was cut off is none, but its samples count"
    assert document["profiles"][0]["samples_ns"][: len(samples(first, A))] == samples(first, A)


KNOBS = "fixed performance, stay awake, doze off, animations off"


WHILE_SENDING = [
    ("to_phone", 30), ("from_phone", 1_600), ("to_phone", 1_000_000), ("to_phone", 20_000_000), ("from_phone", 30_000_000),
]  # fmt: skip
WHILE_AT_WORK = [
    ("to_phone", 4_000), ("to_phone", 9_000), ("to_phone", 18_000), ("to_phone", 26_000), ("to_phone", 31_000),
    ("from_phone", 9_000), ("from_phone", 14_000), ("from_phone", 500_000), ("from_phone", 2_900_000),
]  # fmt: skip
"""Bytes since a bench began, of benches one after the other; the bundle is there for those of the second list.

1,600 is in the middle of the answer to getprop. At its end, which moves by hundreds of bytes with how its lines fall into
packets, the link is idle, and a bench that loses an idle link makes another and goes on.
"""


def cut_at(phone: Phone, direction: str, count: int) -> str:
    """What a bench over a link that is cut there was doing: the word of its error; empty where it ended well."""
    before = ON["settings"](phone)
    with Proxy(phone.port) as proxy:
        proxy.cut_after(count, direction)  # type: ignore[arg-type]
        status, _, err = ON["bench"]("a.onnx", "--runtime", "onnxruntime", *QUICK, "--device", proxy.serial)
    assert status in (3, 4, 0), (direction, count, err)
    for run in ON["run_folders"](Path.cwd()):
        assert (run / "result.json").exists() or f"--resume reports/{run.name}" in err[-1], (direction, count, err)
        run.rename(run.parent.parent / f"{direction}-{count}-{run.name}")
    assert ON["settings"](phone) == before, (direction, count)
    assert CLI["half_written"](Path.cwd()) == []
    if status != 3:
        return ""
    assert " was lost while " in err[-1] and "; try: " in err[-1], (direction, count, err)
    return str(err[-1].partition(" was lost while ")[2]).partition(" ")[0].rstrip(":")


def test_a_link_that_ends_anywhere() -> None:
    """While connecting, sending, preparing, comparing, measuring, bringing home: one line, and the next bench goes on."""
    with Phone("x86_64", "pixel", cores=2) as phone:
        seen = [cut_at(phone, *cut) for cut in WHILE_SENDING]
        assert seen == ["connecting", "running", "pushing", "pushing", "pushing"]
        for cut in (None, *WHILE_AT_WORK, None):
            if cut is not None:
                seen.append(cut_at(phone, *cut))
                continue
            with Proxy(phone.port) as proxy:
                words = ("a.onnx", "--runtime", "onnxruntime", *QUICK, "--json", "out.json")
                status, _, err = ON["bench"](*words, "--device", proxy.serial)
                assert status in (0, 4) and err == []
        assert ON["document"](Path("out.json"))["bundles"][0]["pushed_bytes"] == 0 and proxy.carried["to_phone"] < 200_000
        assert "running" in seen[5:], seen  # which others are met there is a matter of time
        assert not list(phone.path(WORKDIR).rglob("*.part"))


@pytest.mark.parametrize("own", [True, False])
def test_a_runner_that_goes_on_for_nobody(phone: Phone, own: bool) -> None:
    """Of this run, it is ended; of another, nothing is measured beside it."""
    run = "0123456789abcdef"
    with open_device(phone.serial) as device:
        script = f"{device.workdir}/handset-runner"
        Path("script").write_text(f"{'trap : TERM' if own else ':'}\nwhile :; do sleep 0.1; done\n")
        device.push(Path("script"), script)
        job = f"{device.workdir}/runs/{run if own else 'fedcba9876543210'}/launch-00/job"
        device.run(["sh", "-c", 'setsid sh "$@" >/dev/null 2>&1 </dev/null & sleep 0.3', "sh", script, job])
        assert f"sh {script} {job} " in ON["processes"](phone)
        if own:
            assert recover(device, run, Path.cwd(), [A]) == []
        else:
            with pytest.raises(DeviceBusy, match=r"is at work for another bench, .* \(runner-[0-9]+\); try: wait"):
                recover(device, run, Path.cwd(), [A])
            assert recover(device, "fedcba9876543210", Path.cwd(), [A]) == []
        CLI["wait_until"](lambda: not ON["processes"](phone), "its end", 20)
        device.run(["rm", "-f", script])


def test_what_others_left_on_the_phone_goes_after_a_week_and_what_nobody_uses_after_a_month(phone: Phone) -> None:
    base, sent = phone.path(WORKDIR), Path("a.onnx")
    os.utime(sent, (0, 0))
    old = {"runs/0123": 8.5, "check-old": 8.5, "bundles/0123": 31.5, "models/0123": 31.5}
    young = {"runs/4567": 6.5, "check-new": 0.1, "bundles/4567": 29.5, "models/4567": 29.5}
    for name, age_s in (old | young).items():
        (base / name / "launch-00").mkdir(parents=True)
        for path in (base / name / "launch-00", base / name, (base / name).parent):
            os.chown(path, 2000, 2000)
            os.utime(path, (time.time() - age_s * 86400,) * 2)
    bench = ("a.onnx", "--runtime", "onnxruntime", "--device", phone.serial, *QUICK, "--json", "out.json")
    for _ in range(2):
        assert ON["bench"](*bench)[0] in (0, 4)
        assert not [name for name in old if (base / name).exists()]
        assert not [name for name in young if not (base / name).exists()]
    assert ON["document"](Path("out.json"))["bundles"][0]["pushed_bytes"] == 0
    (model,) = (base / "models").glob("*.onnx")
    assert model.stat().st_mtime > time.time() - 3600, "it was used now, whatever the age of the file that was sent"


def test_a_run_goes_on_only_on_its_own_device(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.profiling.run_launch", stop)
    status, _, err = ON["bench"]("a.onnx", "--runtime", "onnxruntime", "--device", phone.serial, *QUICK)
    (run,) = ON["run_folders"](Path.cwd())
    assert status == 130 and resume_line(err, run)
    plan = json.loads((run / "plan.json").read_text())
    plan["begun_on"]["model"] = "another"
    (run / "plan.json").write_text(json.dumps(plan))
    status, _, err = ON["bench"]("--resume", str(run))
    assert status == 2 and len(err) == 1 and "is not the device that " in err[0] and "was another; try: " in err[0]
