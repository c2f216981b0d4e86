"""The "linux" bundle: the runtimes of PyPI's wheels on any phone, over a C library that comes along.

Nothing of the phone's is linked against: the loader of the bundle starts the runner and finds every library beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.bundle import (
    RUNTIMES,
    BundledFile,
    OnStep,
    RuntimeBundle,
    build_runner,
    file_sha256,
    installed_version,
    runner_recipe,
)
from devices.bundle_lock import kept_bundle
from devices.debian_archive import PINS, fetch_c_library
from devices.elf import read_elf_file
from devices.errors import BundleError
from devices.wheels import fetch_library


@dataclass(frozen=True)
class LinuxAbi:
    """Args: machine: what Linux and its wheels call the processor. loader: what starts its programs."""

    machine: str
    loader: str


ABIS = {
    "arm64-v8a": LinuxAbi("aarch64", "ld-linux-aarch64.so.1"),
    "x86_64": LinuxAbi("x86_64", "ld-linux-x86-64.so.2"),
}
"""Android's name of an ABI -> Linux's."""


def linux_bundle(abi: str, runtimes: Sequence[str], cache: Path, on_step: OnStep = lambda text: None) -> RuntimeBundle:
    """The bundle for an ABI with these runtimes, in the versions that are installed here; built once.

    Args: abi: "arm64-v8a" or "x86_64".

    Raises: BundleError: another ABI or runtime; a part of it cannot be fetched, is refused, or does not fit the others;
        the built bundle was tampered with.
    """
    if abi not in ABIS:
        raise BundleError(f"there is no linux bundle for {abi}; there is for {', '.join(ABIS)}")
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise BundleError(f"the linux bundle has no runtime {runtime}; it has {', '.join(RUNTIMES)}")
    versions = {runtime: installed_version(runtime) for runtime in sorted(set(runtimes))}
    recipe = [runner_recipe(ABIS[abi].machine), file_sha256(PINS), *(f"{name} {its}" for name, its in versions.items())]

    def make(scratch: Path) -> RuntimeBundle:
        machine, loader = ABIS[abi].machine, ABIS[abi].loader
        on_step(f"the runner for {machine}")
        runner = build_runner(machine, cache)
        libraries = {runtime: fetch_library(runtime, machine, scratch, on_step) for runtime in versions}
        support = fetch_c_library(abi, scratch, on_step)
        bundle = RuntimeBundle("linux", abi, runner, libraries, versions, support, loader)
        check_fit(abi, bundle.files)
        return bundle

    return kept_bundle(cache, "linux", abi, recipe, make)


def check_fit(abi: str, files: Mapping[str, BundledFile]) -> None:
    """Raises: BundleError: a file is for another processor, or asks for a library that is not among them."""
    for name, file in files.items():
        elf = read_elf_file(file.path)
        if elf.abi != abi:
            raise BundleError(f"{name} ({file.origin}) is for {elf.abi}, not {abi}")
        absent = [needed for needed in elf.needed if needed not in files]
        if absent:
            raise BundleError(f"{name} ({file.origin}) needs {', '.join(absent)}, which the linux bundle does not have")
