"""RuntimeBundle: the on-device runner and the runtime libraries for one ABI, each file known by its SHA-256.

The libraries come from the PyPI wheels that are installed beside handset; the runner is built from `native/` by
`ziglang`, so that no compiler of the machine's is needed and the same source gives the same bytes everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devices.errors import BundleError

RUNTIMES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime/capi/libonnxruntime.so."),
    "litert": ("ai-edge-litert", "ai_edge_litert/libLiteRt.so"),
}
"""Runtime -> (distribution on PyPI, how the path of its library inside the wheel begins)."""

GLIBC = "2.28"
"""The oldest C library the runner asks for; that of the wheels' manylinux_2_28."""

RUNNER = "handset-runner"

OnStep = Callable[[str], None]
"""Called with what is about to be done, where that may take more than a second."""

C_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-deprecated-non-prototype", "-fno-sanitize=all", "-s")


@dataclass(frozen=True)
class BundledFile:
    path: Path
    sha256: str
    origin: str


@dataclass(frozen=True)
class RuntimeBundle:
    """What one kind of device needs to run models.

    Args:
        kind: "host" (used where it lies), "linux" (PyPI's libraries and a C library that comes along) or "android" (the
            official Android libraries over the phone's own C library).
        abi: Android's name of it ("arm64-v8a", "x86_64"); the host's own name for "host".
        libraries, versions: by runtime.
        support: name on the device -> what else must lie beside the runner.
        loader: the file of `support` that starts the runner; empty where the system does.
    """

    kind: str
    abi: str
    runner: BundledFile
    libraries: Mapping[str, BundledFile]
    versions: Mapping[str, str]
    support: Mapping[str, BundledFile] = field(default_factory=dict)
    loader: str = ""

    @property
    def files(self) -> dict[str, BundledFile]:
        """All files by their names on the device."""
        return {RUNNER: self.runner, **{library_name(name): file for name, file in self.libraries.items()}, **self.support}

    @property
    def sha256(self) -> str:
        """The bundle's identity: of all names and their content."""
        lines = sorted(f"{name} {file.sha256}\n" for name, file in self.files.items())
        return hashlib.sha256("".join([f"{self.kind} {self.abi} {self.loader}\n", *lines]).encode()).hexdigest()


def library_name(runtime: str) -> str:
    """What a runtime's library is called on a device, whatever its version."""
    return f"lib{runtime}.so"


def host_bundle(abi: str, runtimes: list[str], cache: Path) -> RuntimeBundle:
    """The bundle for this machine: libraries where the wheels lie, the runner built into `cache` where it is not yet.

    Raises: BundleError: a runtime is not installed, or the runner cannot be built.
    """
    libraries = {runtime: find_library(runtime) for runtime in runtimes}
    versions = {runtime: installed_version(runtime) for runtime in runtimes}
    return RuntimeBundle("host", abi, build_runner(abi, cache), libraries, versions)


def installed_version(runtime: str) -> str:
    """Raises: BundleError: the runtime's package is not installed here."""
    distribution, _ = RUNTIMES[runtime]
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise BundleError(f"the runtime {runtime} needs the package {distribution}", try_="make install") from None


def find_library(runtime: str) -> BundledFile:
    """The library in the installed package. Raises: BundleError: the package or its library is not here."""
    distribution, prefix = RUNTIMES[runtime]
    version = installed_version(runtime)
    found = [file for file in importlib.metadata.files(distribution) or [] if str(file).startswith(prefix)]
    if len(found) != 1:
        what = f"{distribution} {version} holds {len(found)} libraries {prefix}*, not one"
        raise BundleError(what, try_="make install")
    path = Path(str(found[0].locate()))
    try:
        digest = file_sha256(path)
    except OSError as error:
        what = f"cannot read {path} of {distribution} {version}: {error.strerror}"
        raise BundleError(what, try_="make install") from error
    return BundledFile(path, digest, f"pypi:{distribution}=={version}:{found[0]}")


def build_runner(abi: str, cache: Path) -> BundledFile:
    """The runner for an ABI, built once for each state of its source and its compiler.

    Raises: BundleError: ziglang is missing, its compiler fails, or the cache cannot be written.
    """
    target, sources = f"{abi}-linux-gnu.{GLIBC}", _sources()
    runner = cache / "runner" / f"handset-runner-{abi}-{runner_recipe(abi)[:16]}"
    if not runner.exists():
        compiled = [str(source) for source in sources if source.suffix == ".c"]
        compile_c(["-target", target, *C_FLAGS, *compiled, "-ldl"], runner, cache)
    return BundledFile(runner, file_sha256(runner), f"devices/native, ziglang {compiler_version()}, {target}")


def runner_recipe(abi: str) -> str:
    """The SHA-256 of all that decides what `build_runner` builds. Raises: BundleError: ziglang is missing."""
    return recipe_sha256([compiler_version(), f"{abi}-linux-gnu.{GLIBC}", *C_FLAGS], _sources())


def recipe_sha256(words: Sequence[str], sources: Sequence[Path]) -> str:
    recipe = hashlib.sha256("\0".join(words).encode())
    for source in sources:
        recipe.update(source.name.encode() + b"\0" + source.read_bytes())
    return recipe.hexdigest()


def _sources() -> list[Path]:
    return sorted((Path(__file__).parent / "native").glob("*.[ch]"))


def compiler_version() -> str:
    """Raises: BundleError: ziglang is not installed."""
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        raise BundleError("the runner is built by ziglang, which is not here", try_="make install") from None


def compile_c(arguments: list[str], output: Path, cache: Path) -> None:
    """Runs the compiler; `output` appears whole or not at all. Raises: BundleError: as `build_runner`."""
    part = ""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=output.name, dir=output.parent)
        os.close(handle)
        command = [sys.executable, "-m", "ziglang", "cc", "-o", part, *arguments]
        zig_cache = {"ZIG_LOCAL_CACHE_DIR": str(cache / "zig"), "ZIG_GLOBAL_CACHE_DIR": str(cache / "zig")}
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **zig_cache}, check=False)
        if result.returncode:
            raise BundleError(f"the runner does not compile: {result.stderr.strip()[:2000]}")
        os.chmod(part, 0o755)
        os.replace(part, output)
    except OSError as error:
        raise BundleError(f"cannot build the runner in {output.parent}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
