"""The "android" bundle: the official Android libraries out of AARs, and the runner built for Android's own C library.

No NDK: `native/bionic/` holds a start of the program, the declarations that are used and the lists of names from which
stub libraries are made to link against. Only C without thread-locals is built, and what was built is read again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devices.aar import AarLibrary, extract, label
from devices.android_api import LINKER, PAGE_BYTES, libraries, objections, stub_source
from devices.bundle import C_FLAGS, BundledFile, RuntimeBundle, compile_c, compiler_version
from devices.elf import read_elf_file
from devices.errors import BundleError

TARGETS = {"arm64-v8a": "aarch64-linux-android", "x86_64": "x86_64-linux-android"}
"""Android's name of an ABI -> the compiler's."""

BARE = ("-nostdlib", "-nostdinc", "-fno-stack-protector")
STUB_FLAGS = (*BARE, "-O1", "-w", "-fno-builtin", "-fno-sanitize=all", "-s", "-fPIC", "-shared")
RUNNER_FLAGS = (
    *C_FLAGS, *BARE, "-fPIE", "-pie", "-Wl,--hash-style=both", f"-Wl,-z,max-page-size={PAGE_BYTES}",
    "-Wl,--no-undefined", f"-Wl,-dynamic-linker,{LINKER}",
)  # fmt: skip

ENTRIES = {
    "tflite": frozenset({"TfLiteModelCreateFromFile", "TfLiteInterpreterInvoke"}),
    "litert": frozenset({"LiteRtCreateEnvironment", "LiteRtRunCompiledModel"}),
    "onnxruntime": frozenset({"OrtGetApiBase"}),
}
"""Runtime of the runner -> names that its library exports."""


def android_bundle(abi: str, archives: Sequence[Path], cache: Path) -> tuple[RuntimeBundle, list[str]]:
    """The bundle for a phone, from AARs, and what the user should be told about their libraries.

    Args: abi: "arm64-v8a" or "x86_64".

    Raises: BundleError: no runner can be built for the ABI; an archive is refused, holds no runtime that the runner
        speaks to, or one that another archive holds too.
    """
    runner = build_android_runner(abi, cache)
    found: dict[str, tuple[AarLibrary, str]] = {}
    for archive in archives:
        runtimes = [(runtime_of(library), library) for library in extract(archive, abi, cache)]
        known = [(runtime, library) for runtime, library in runtimes if runtime]
        if not known:
            names = ", ".join(library.name for _, library in runtimes)
            raise BundleError(f"{archive.name} holds no runtime that the runner speaks to; it holds {names}")
        for runtime, library in known:
            if runtime in found:
                raise BundleError(f"{archive.name} holds the runtime {runtime} a second time", try_="one AAR a runtime")
            found[runtime] = library, label(archive)[1] or library.file.sha256[:12]
    bundle = RuntimeBundle(
        abi=abi,
        runner=runner,
        libraries={runtime: library.file for runtime, (library, _) in found.items()},
        versions={runtime: version for runtime, (_, version) in found.items()},
    )
    return bundle, [library.warning for library, _ in found.values() if library.warning]


def runtime_of(library: AarLibrary) -> str | None:
    """The runtime that a library is, by what it exports; None for any other."""
    return next((runtime for runtime, names in ENTRIES.items() if names <= library.elf.exports), None)


def build_android_runner(abi: str, cache: Path) -> BundledFile:
    """The runner for Android's C library, built once for each state of its source and its compiler.

    Raises: BundleError: another ABI; ziglang is missing or fails; a phone would not start what was built.
    """
    if abi not in TARGETS:
        raise BundleError(f"there is no android bundle for {abi}; there is for {', '.join(TARGETS)}")
    native = Path(__file__).parent / "native"
    compiler, target = compiler_version(), TARGETS[abi]
    sources = [*sorted(native.glob("*.[ch]")), *sorted((native / "bionic").iterdir())]
    recipe = hashlib.sha256("\0".join([compiler, target, *STUB_FLAGS, *RUNNER_FLAGS]).encode())
    for source in sources:
        recipe.update(source.name.encode() + b"\0" + source.read_bytes())
    runner = cache / "runner-android" / f"handset-runner-{abi}-{recipe.hexdigest()[:16]}"
    if not runner.exists():
        _build(target, native, runner, cache)
    wrong = objections(read_elf_file(runner), abi, native)
    if wrong:
        raise BundleError(f"the runner for {abi} is refused: {'; '.join(wrong)}", try_=f"rm {runner}")
    digest = hashlib.sha256(runner.read_bytes()).hexdigest()
    return BundledFile(runner, digest, f"devices/native, ziglang {compiler}, {target}")


def _build(target: str, native: Path, runner: Path, cache: Path) -> None:
    compiled = [str(source) for source in (*sorted(native.glob("*.c")), native / "bionic" / "crt.c")]
    try:
        with tempfile.TemporaryDirectory(prefix="handset-stubs-") as folder:
            stubs = []
            for library, names in libraries(native).items():
                source, stub = Path(folder, library).with_suffix(".c"), Path(folder, library)
                source.write_text(stub_source(names), "utf-8")
                compile_c(["-target", target, *STUB_FLAGS, f"-Wl,-soname,{library}", str(source)], stub, cache)
                stubs.append(str(stub))
            compile_c(["-target", target, *RUNNER_FLAGS, *compiled, *stubs], runner, cache)
    except OSError as error:
        raise BundleError(f"cannot build the runner for {target}: {error.strerror}") from error
