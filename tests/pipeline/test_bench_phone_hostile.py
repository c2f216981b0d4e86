"""A phone that lies about its files and its results: an error, and nothing outside the run folder is touched."""

from __future__ import annotations

import io
import json
import runpy
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.bundle_store import bundle_for
from devices.discovery import cache_dir, open_device
from devices.errors import DeviceError, DeviceLost
from devices.install import install
from pipeline.collect import collect, runs_folder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

ON = runpy.run_path(str(Path(__file__).with_name("phone_bench.py")))
FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
ONNX = ("reports/../a.onnx", "--runtime", "onnxruntime", "--allow-mismatch", *ON["QUICK"])
CASE = "a.onnxruntime"

LOADER = """#!/system/bin/sh
[ $# -gt 3 ] || { echo "usage: liar JOB" >&2; exit 2; }
while read -r key results; do [ "$key" != results ] || break; done <"$4"
cd "${results%/*}"
case $results in
  */runs/*) . /state/launch ;;
  *) . /state/check ;;
esac
"""
SHA256SUM = """#!/system/bin/sh
[ "$1" != -- ] || { cat /state/sums; exit 0; }
exec /system/bin/busybox sha256sum "$@"
"""
FIND = """#!/system/bin/sh
case "$*" in *"-exec tar -c"*) cat /state/archive ;; *) exec /system/bin/busybox find "$@" ;; esac
"""


@pytest.fixture(scope="module")
def liar() -> Iterator[Phone]:
    """A phone with the bundle, whose loader is not the one that was sent though its sums say so; it has nothing to say."""
    ON["need"]()
    bundle, _ = bundle_for("linux", "x86_64", ["onnxruntime"], [], cache_dir())
    with Phone("x86_64", "pixel", cores=2) as phone:
        with open_device(phone.serial) as device:
            folder = install(bundle, device).start[0].rpartition("/")[0]
        told = "".join(f"{file.sha256}  {name}\n" for name, file in bundle.files.items())
        (phone.state / "sums").write_text(told)
        replace(phone, folder + "/" + bundle.loader, LOADER)
        replace(phone, "system/bin/sha256sum", SHA256SUM)
        yield phone


def replace(phone: Phone, remote: str, script: str) -> None:
    path = phone.root / remote.lstrip("/")
    path.unlink()
    path.write_text(script)
    path.chmod(0o755)


@pytest.fixture(autouse=True)
def folder(liar: Phone, digits_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ON["place"](digits_files, tmp_path))
    (tmp_path / "secret.onnx").write_text("a file of the user's")
    (tmp_path / "reports").mkdir()
    for name in ("launch", "check", "results"):
        (liar.state / name).write_text(": >results.jsonl\n")
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def block(*times: Any) -> dict[str, Any]:
    return {**FAKE["block"]([1]), "case": CASE, "sample_ns": list(times), "canary_ns": [1] * len(times)}


FINISHED = {"type": "finished", "peak_memory_bytes": 1}
RESULTS: dict[str, tuple[str, str]] = {
    "no JSON": ("{nonsense\n", "damaged in line 1"),
    "deep": ("[" * 100_000 + "\n", "damaged in line 1: RecursionError"),
    "huge number": (lines(block(10**30)).replace(str(10**30), "9" * 5000), "damaged in line 1"),
    "no time": (lines(block(-1)), "damaged in line 1: ValueError a negative time"),
    "no number": (lines(block(float("nan"))), "damaged in line 1"),
    "terminal": (lines({"type": "\x1b[31m\n<b>", "case": CASE}), "damaged in line 1"),
    "another case": (lines({**block(1), "case": "../../x"}), "of a case that it was not asked for: '../../x'"),
    "no name": (lines({**block(1), "case": ""}), "of a case that it was not asked for: ''"),
    "profile elsewhere": (
        lines({**FINISHED, "case": CASE, "profile": "/../../../secret.onnx"}), "the profile of a.onnxruntime did not come",
    ),
    "graph elsewhere": (
        lines({**FINISHED, "case": "../../../secret", "profile": "x/p.json"}), "that it was not asked for: '../../../secret'",
    ),
}  # fmt: skip


def home(liar: Phone, folder: Path, script: str) -> str:
    """What bringing a launch home is refused with, whose folder on the phone the script filled."""
    run, before = folder / "reports", files(folder)
    with open_device(liar.serial) as device:
        scratch = f"{runs_folder(device, 'run')}/launch-00"
        made = device.run(["sh", "-c", 'mkdir -p "$1"; cd "$1"; . "$2"', "sh", scratch, script], timeout_s=60)
        assert made.status == 0, made.stderr
        with pytest.raises(DeviceError) as error:
            collect(device, scratch, run / "launch-00.jsonl", {CASE: "log"})
        device.run(["rm", "-rf", runs_folder(device, "run")])
    assert files(folder) == before and (folder / "secret.onnx").read_text() == "a file of the user's"
    assert not isinstance(error.value, DeviceLost), "it would be tried for ever"
    return str(error.value)


@pytest.mark.parametrize("name", RESULTS)
def test_results_that_no_runner_writes(liar: Phone, folder: Path, name: str) -> None:
    text, expected = RESULTS[name]
    (liar.state / "results").write_text(text)
    (liar.state / "launch").write_text("cat /state/results >results.jsonl; echo '[]' >p.json\n")
    assert expected in home(liar, folder, "/state/launch")


FOLDERS = {
    "10 GB": ("dd if=/dev/zero of=results.jsonl bs=1 count=1 seek=10737418240 2>/dev/null", "holds over 1073741824 bytes"),
    "many": ("i=0; while [ $i -lt 300 ]; do : >$i; i=$((i + 1)); done", "files"),
    "a link": ("ln -s /etc/passwd results.jsonl", "the runner left no results in "),
    "a folder": ("mkdir results.jsonl", "the runner left no results in "),
    "a pipe": ("mkfifo results.jsonl", "the runner left no results in "),
    "escapes": (': >results.jsonl; : >"$(printf "a\\\\033[31mb")"', "holds a control character"),
    "hidden": (": >results.jsonl; : >.x", "begins with a dot"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_no_runner_leaves(liar: Phone, folder: Path, name: str) -> None:
    script, expected = FOLDERS[name]
    (liar.state / "launch").write_text(f"{script}\n")
    assert expected in home(liar, folder, "/state/launch")


def member(name: str, content: bytes = b"", **more: Any) -> bytes:
    """An archive of one file."""
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
        return file.getvalue()


ARCHIVES = {
    "outside": member("../../x", b"x"),
    "absolute": member("/tmp/handset-was-here", b"x"),
    "link": member("results.jsonl", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("results.jsonl", type=tarfile.LNKTYPE, linkname="../../../../secret.onnx"),
    "device": member("results.jsonl", type=tarfile.CHRTYPE),
    "10 GB": member("results.jsonl", b"x")[:124] + b"%011o\0" % (10 << 30) + member("results.jsonl", b"x")[136:],
    "no archive": b"\x1b[31m" * 1000,
}


@pytest.fixture
def archive(liar: Phone) -> Iterator[Path]:
    """What the phone gives as the archive of whatever folder."""
    find = liar.root / "system/bin/find"
    replace(liar, "system/bin/find", FIND)
    yield liar.state / "archive"
    find.unlink()
    find.symlink_to("busybox")


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_no_tar_makes(liar: Phone, folder: Path, archive: Path, name: str) -> None:
    archive.write_bytes(ARCHIVES[name])
    assert home(liar, folder, "/state/launch").startswith("cannot pull the folder ")
    assert not Path("/tmp/handset-was-here").exists()


def fails(liar: Phone, folder: Path) -> str:
    """The error's line of a whole bench, after the one that says that the outputs cannot be compared."""
    before, settings = files(folder), ON["settings"](liar)
    status, out, err = ON["bench"](*ONNX, "--device", liar.serial)
    assert (status, out) == (3, "") and len(err) <= 2, err
    assert files(folder) == before and (folder / "secret.onnx").read_text() == "a file of the user's"
    ON["is_tidy"](liar, settings)
    return str(err[-1])


def test_the_whole_bench_ends_with_the_same_line(liar: Phone, folder: Path) -> None:
    (liar.state / "results").write_text(RESULTS["graph elsewhere"][0])
    (liar.state / "launch").write_text("cat /state/results >results.jsonl; echo '[]' >p.json\n")
    assert RESULTS["graph elsewhere"][1] in fails(liar, folder)
    (liar.state / "check").write_text(FOLDERS["10 GB"][0])
    assert "holds over " in fails(liar, folder)


def test_outputs_that_come_as_another_archive(liar: Phone, folder: Path, archive: Path) -> None:
    archive.write_bytes(ARCHIVES["outside"])
    assert fails(liar, folder).startswith("cannot pull the folder /data/local/tmp/handset/check-")


@pytest.mark.parametrize("stage", ["launch", "check"])
def test_a_runner_that_ends_otherwise(liar: Phone, folder: Path, stage: str) -> None:
    (liar.state / stage).write_text("printf '\\033[31mno\\nhandset: \\033[31mall is well\\n' >&2; exit 9\n")
    assert fails(liar, folder).endswith("ended with status 9: handset: ?[31mall is well")
    (liar.state / stage).write_text("kill -9 $$\n")
    assert fails(liar, folder) == "the runner ended with status 137: it said nothing"


def test_text_of_a_runner_is_printed_and_shown_as_text(liar: Phone, folder: Path) -> None:
    why = "<script>alert(1)</script>\x1b[31m\r\n" + "x" * 5000
    (liar.state / "results").write_text(lines({"type": "failed", "case": CASE, "signal": 0, "why": why}))
    (liar.state / "launch").write_text("cat /state/results >results.jsonl\n")
    status, out, err = ON["bench"](*ONNX, "--device", liar.serial)
    assert (status, out) == (1, "") and "no case could be measured: <script>alert(1)</script>" in err[-1]
    (run,) = ON["run_folders"](folder)
    page = (run / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page


def test_numbers_that_no_clock_gives(liar: Phone, folder: Path) -> None:
    """They are whole numbers of 64 bits, and so they are counted with: no traceback."""
    times = [1 << 62, 2, 1, (1 << 63) - 1] * 3
    rows = [block(*times) | {"start_ns": times, "preempted": times} for _ in range(5)]
    (liar.state / "results").write_text(lines(*rows, {**FINISHED, "case": CASE, "profile": ""}))
    (liar.state / "launch").write_text("cat /state/results >results.jsonl\n")
    status, _, err = ON["bench"](*ONNX, "--device", liar.serial)
    assert status in (1, 4), err


