"""The "android" bundle: the official Android libraries out of AARs, and the runner built for Android's own C library.

No NDK: `native/bionic/` holds a start of the program, the declarations that are used and the lists of names from which
stub libraries are made to link against. Only C without thread-locals is built, and what was built is read again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from devices.aar import Aar, AarLibrary, extract, page_size_warning
from devices.android_api import LINKER, PAGE_BYTES, libraries, objections, stub_source
from devices.bundle import (
    C_FLAGS,
    BundledFile,
    OnStep,
    RuntimeBundle,
    compile_c,
    compiler_version,
    file_sha256,
    recipe_sha256,
)
from devices.bundle_lock import kept_bundle
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


def android_bundle(
    abi: str,
    aars: Sequence[Aar],
    cache: Path,
    runtimes: Sequence[str] | None = None,
    on_step: OnStep = lambda text: None,
) -> tuple[RuntimeBundle, list[str]]:
    """The bundle for a phone, from AARs, built once; and what the user should be told about its libraries.

    Args: abi: "arm64-v8a" or "x86_64". runtimes: those wanted; None takes all that the AARs hold.

    Raises: BundleError: no runner can be built for the ABI; an archive is refused, holds no runtime that the runner
        speaks to, or one that another archive holds too; a runtime that is wanted is in none of them; the built bundle
        was tampered with.
    """
    if abi not in TARGETS:
        raise BundleError(f"there is no android bundle for {abi}; there is for {', '.join(TARGETS)}")
    wanted = "all" if runtimes is None else " ".join(sorted(runtimes))
    recipe = [android_runner_recipe(abi), wanted, *sorted(f"{aar.origin} {aar.version} {aar.sha256}" for aar in aars)]

    def make(scratch: Path) -> RuntimeBundle:
        on_step(f"the android bundle for {abi}")
        return _make(abi, aars, runtimes, cache, scratch)

    bundle = kept_bundle(cache, "android", abi, recipe, make)
    return bundle, [note for file in bundle.libraries.values() if (note := page_size_warning(file))]


def _make(abi: str, aars: Sequence[Aar], runtimes: Sequence[str] | None, cache: Path, scratch: Path) -> RuntimeBundle:
    runner = build_android_runner(abi, cache)
    found: dict[str, tuple[BundledFile, str]] = {}
    for aar in aars:
        libraries = extract(aar.path, abi, scratch, sha256=aar.sha256, origin=aar.origin)
        known = [(runtime, library) for library in libraries if (runtime := runtime_of(library))]
        if not known:
            names = ", ".join(library.name for library in libraries)
            raise BundleError(f"{aar.path.name} holds no runtime that the runner speaks to; it holds {names}")
        for runtime, library in known:
            if runtime in found:
                raise BundleError(
                    f"{aar.path.name} holds the runtime {runtime} a second time", try_="one AAR a runtime"
                )
            found[runtime] = library.file, aar.version
    for runtime in runtimes or ():
        if runtime not in found:
            what = f"the android bundle has no runtime {runtime}; its AARs hold {', '.join(sorted(found))}"
            raise BundleError(what, try_="--aar with one that holds it")
    taken = {runtime: found[runtime] for runtime in sorted(found) if runtimes is None or runtime in runtimes}
    return RuntimeBundle(
        kind="android",
        abi=abi,
        runner=runner,
        libraries={runtime: file for runtime, (file, _) in taken.items()},
        versions={runtime: version for runtime, (_, version) in taken.items()},
    )


def runtime_of(library: AarLibrary) -> str | None:
    """The runtime that a library is, by what it exports; None for any other."""
    return next((runtime for runtime, names in ENTRIES.items() if names <= library.elf.exports), None)


def build_android_runner(abi: str, cache: Path) -> BundledFile:
    """The runner for Android's C library, built once for each state of its source and its compiler.

    Raises: BundleError: another ABI; ziglang is missing or fails; a phone would not start what was built.
    """
    if abi not in TARGETS:
        raise BundleError(f"there is no android bundle for {abi}; there is for {', '.join(TARGETS)}")
    native, target = Path(__file__).parent / "native", TARGETS[abi]
    runner = cache / "runner-android" / f"handset-runner-{abi}-{android_runner_recipe(abi)[:16]}"
    if not runner.exists():
        _build(target, native, runner, cache)
    wrong = objections(read_elf_file(runner), abi, native)
    if wrong:
        raise BundleError(f"the runner for {abi} is refused: {'; '.join(wrong)}", try_=f"rm {runner}")
    return BundledFile(runner, file_sha256(runner), f"devices/native, ziglang {compiler_version()}, {target}")


def android_runner_recipe(abi: str) -> str:
    """The SHA-256 of all that decides what `build_android_runner` builds. Raises: BundleError: ziglang is missing."""
    native = Path(__file__).parent / "native"
    sources = [*sorted(native.glob("*.[ch]")), *sorted((native / "bionic").iterdir())]
    return recipe_sha256([compiler_version(), TARGETS[abi], *STUB_FLAGS, *RUNNER_FLAGS], sources)


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
