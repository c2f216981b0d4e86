"""A bundle on a device: sent once, checked by its sums, started once to see that it starts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from devices.bundle import RUNNER, BundledFile, RuntimeBundle
from devices.errors import BundleError
from devices.host import HostTransport
from devices.install import install, missing

STARTS = "#!/bin/sh\necho 'usage: handset-runner JOB' >&2\nexit 2\n"


class Counting(HostTransport):
    """A device that counts what it is sent."""

    def __init__(self, workdir: Path) -> None:
        super().__init__(workdir)
        self.sent: list[str] = []
        self.commands = 0

    def push(self, local: Path, remote: str) -> None:
        self.sent.append(Path(remote).name)
        super().push(local, remote)

    def run(self, *arguments: Any, **more: Any) -> Any:
        self.commands += 1
        return super().run(*arguments, **more)


@pytest.fixture
def device(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "device")


def bundled(path: Path, text: str, mode: int = 0o755) -> BundledFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return BundledFile(path, hashlib.sha256(text.encode()).hexdigest(), "a test")


def make(folder: Path, runner: str = STARTS, **settings: Any) -> RuntimeBundle:
    kind = settings.pop("kind", "linux")
    libraries = {"litert": bundled(folder / "liblitert.so.2", "a library")}
    return RuntimeBundle(kind, "x86_64", bundled(folder / "runner", runner), libraries, {"litert": "2"}, **settings)


def test_a_bundle_is_sent_once_and_started_where_it_lies(tmp_path: Path, device: Counting) -> None:
    bundle, told = make(tmp_path / "here"), list[tuple[str, int]]()
    first = install(bundle, device, lambda name, size: told.append((name, size)))
    folder = f"{device.workdir}/bundles/{bundle.sha256}"
    assert first.start == (f"{folder}/{RUNNER}",) and first.libraries == {"litert": f"{folder}/liblitert.so"}
    assert Path(first.libraries["litert"]).read_text() == "a library"
    assert sorted(device.sent) == [RUNNER, "liblitert.so"] and first.pushed_bytes == len(STARTS) + len("a library")
    assert sorted(told) == [(RUNNER, len(STARTS)), ("liblitert.so", len("a library"))]
    device.sent.clear()
    device.commands = 0
    again = install(bundle, device)
    assert (again.start, again.pushed_bytes, device.sent, device.commands) == (first.start, 0, [], 2)


def test_a_file_that_was_changed_on_the_device_is_sent_again(tmp_path: Path, device: Counting) -> None:
    bundle = make(tmp_path / "here")
    Path(install(bundle, device).libraries["litert"]).write_text("a Library")
    device.sent.clear()
    assert install(bundle, device).pushed_bytes == len("a library") and device.sent == ["liblitert.so"]


def test_other_content_is_another_bundle(tmp_path: Path) -> None:
    bundles = [
        make(tmp_path / "a"),
        make(tmp_path / "b", STARTS + "# another\n"),
        make(tmp_path / "c", kind="android"),
        make(tmp_path / "d", support={"libc.so.6": bundled(tmp_path / "d" / "libc", "libc")}),
    ]
    assert len({bundle.sha256 for bundle in bundles}) == 4
    assert make(tmp_path / "e").sha256 == bundles[0].sha256  # wherever it lies


def test_a_loader_starts_the_runner(tmp_path: Path, device: Counting) -> None:
    loader = bundled(tmp_path / "ld", '#!/bin/sh\n[ "$1" = --library-path ] && shift 2 && exec "$@"\n')
    bundle = make(tmp_path / "here", support={"ld-linux.so.2": loader}, loader="ld-linux.so.2")
    folder = f"{device.workdir}/bundles/{bundle.sha256}"
    start = install(bundle, device).start
    assert start == (f"{folder}/ld-linux.so.2", "--library-path", folder, f"{folder}/{RUNNER}")


def test_the_hosts_own_bundle_is_used_where_it_lies(tmp_path: Path, device: Counting) -> None:
    bundle = make(tmp_path / "here", kind="host")
    one = install(bundle, device)
    assert one.start == (str(bundle.runner.path),) and one.libraries == {"litert": str(bundle.libraries["litert"].path)}
    assert (device.sent, one.pushed_bytes) == ([], 0)


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("#!/bin/sh\necho 'Permission denied' >&2; exit 1\n", "does not let the runner be executed.*noexec"),
        ("#!/bin/sh\nexit 126\n", "does not let the runner be executed.*status 126.*noexec"),
        ("#!/bin/sh\necho one >&2; echo 'no such linker' >&2; exit 127\n", "does not start the runner.*: no such linker; try"),
        ("#!/bin/sh\nkill -SEGV $$\n", "does not start .* of the linux bundle for x86_64: status 139; try: --bundle android"),
        ("#!/bin/sh\nexit 0\n", "does not start the runner.*status 0"),
    ],
)  # fmt: skip
def test_a_device_that_does_not_start_it_is_told_from_one_that_may_not(
    tmp_path: Path, device: Counting, runner: str, said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        install(make(tmp_path / "here", runner), device)


def test_names_are_no_shell_text(tmp_path: Path, device: Counting) -> None:
    names = ["a b", "it's", "$(touch x)", "-n", "back\\slash"]
    files = {name: bundled(tmp_path / "here" / name, name) for name in names}
    folder = f"{device.workdir}/the folder"
    assert missing(files, device, folder) == files
    for name in names[:4]:
        device.push(files[name].path, f"{folder}/{name}")
    # sha256sum escapes a backslash: such a file is simply sent again
    assert list(missing(files, device, folder)) == [names[4]]
