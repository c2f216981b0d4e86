"""`handset bundle`: builds, lists and removes the runtime bundles that phones are given."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import Console, printable
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from devices.bundle import RuntimeBundle

PHONE_KINDS = ("linux", "android")

WAIT_S = 600.0
"""For a bench on the device to end, whose bundle is not to be taken away."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A bundle is what a phone needs to run models: the runner and the runtimes' libraries for one ABI, with, for the "
        "linux bundle, a C library of their own. A bench builds the one it needs by itself."
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="fetch and build bundles; what is built already is checked")
    build.add_argument(
        "--bundle", default=",".join(PHONE_KINDS), help="linux, android or both (the default), comma between"
    )
    build.add_argument("--abi", default=None, help="arm64-v8a, x86_64 or both (the default), comma between")
    build.add_argument(
        "--aar", action="append", default=[], metavar="AAR",
        help="for the android bundle: a path, or GROUP:ARTIFACT:VERSION to get with Maven; may be given several times "
        "($HANDSET_AAR, else TensorFlow Lite)",
    )  # fmt: skip
    build.set_defaults(command=_build)
    show = actions.add_parser("show", help="what is built, and whether it is intact")
    show.add_argument("--json", type=Path, default=None, metavar="PATH", help="the list as a file")
    show.set_defaults(command=_show)
    clean = actions.add_parser("clean", help="remove what was built")
    clean.add_argument("--device", default=None, help="also from this phone")
    clean.set_defaults(command=_clean)


def _build(arguments: argparse.Namespace) -> int:
    """Each bundle that was asked for; one that cannot be built does not keep the others from it."""
    from devices.bundle_store import abis, bundle_for
    from devices.discovery import cache_dir
    from devices.errors import DeviceError

    kinds = _words(arguments.bundle, PHONE_KINDS, "--bundle")
    known = tuple(dict.fromkeys(abi for kind in PHONE_KINDS for abi in abis(kind)))
    wanted = known if arguments.abi is None else _words(arguments.abi, known, "--abi")
    if arguments.aar and "android" not in kinds:
        raise UsageError("--aar is for the android bundle only", try_="--bundle android")
    console = Console()
    failed: list[DeviceError] = []
    notes: list[str] = []
    for kind in kinds:
        for abi in wanted:
            try:
                with _Steps(console) as steps:
                    bundle, said = bundle_for(
                        kind, abi, None, arguments.aar if kind == "android" else (), cache_dir(), steps.begin
                    )
            except DeviceError as error:
                failed.append(error)
                continue
            print(_built_text(bundle), flush=True)
            notes += [note for note in said if note not in notes]
    for note in notes:
        console.say(note)
    for text in dict.fromkeys(str(error) for error in failed):
        console.say(" ".join(text.split())[:1000])
    return failed[0].exit_status if failed else 0


class _Steps:
    """Steps that are told one after the other, each shown as a stage until the next one begins."""

    def __init__(self, console: Console) -> None:
        self._console, self._stack = console, contextlib.ExitStack()

    def begin(self, text: str) -> None:
        self._stack.close()
        self._stack.enter_context(self._console.stage(text))

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _words(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """The words of a list with commas, without repetition. Raises: UsageError: one is not known, or there are none."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise UsageError(
            f"{option} {text}: there is no {unknown[0] if unknown else 'name in it'}", try_=", ".join(known)
        )
    return words


def _built_text(bundle: RuntimeBundle) -> str:
    sizes = {name: file.path.stat().st_size for name, file in bundle.files.items()}
    lines = [f"{bundle.kind} {bundle.abi} {bundle.sha256[:16]} {sum(sizes.values()):,} bytes"]
    lines += [f"  {name:<22} {sizes[name]:>11,}  {file.origin}" for name, file in bundle.files.items()]
    return "\n".join(map(printable, lines))


def _show(arguments: argparse.Namespace) -> int:
    from devices.bundle_store import Built, built_bundles
    from devices.discovery import cache_dir
    from pipeline.runfolder import write_json

    def row(built: Built) -> dict[str, Any]:
        return {
            "kind": built.kind,
            "abi": built.abi,
            "folder": str(built.folder),
            "bytes": built.size_bytes,
            "sha256": None if built.bundle is None else built.bundle.sha256,
            "versions": {} if built.bundle is None else dict(built.bundle.versions),
            "wrong": built.wrong or None,
        }

    with Console().stage("checking the bundles"):
        found = built_bundles(cache_dir())
    if arguments.json is not None:
        write_json(arguments.json, {"schema_version": 1, "kind": "bundles", "bundles": [row(built) for built in found]})
    if not found:
        print("no bundles are built; handset bundle build builds them")
    for built in found:
        state = built.wrong or ", ".join(f"{name} {version}" for name, version in (row(built)["versions"]).items())
        print(printable(f"{built.kind:<8} {built.abi:<10} {built.folder.name} {built.size_bytes:>11,} bytes  {state}"))
    return 1 if any(built.wrong for built in found) else 0


def _clean(arguments: argparse.Namespace) -> int:
    from devices import open_device
    from devices.bundle_store import clean, clean_device
    from devices.discovery import cache_dir
    from devices.lock import device_lock, lock_key

    console = Console()
    if arguments.device is not None:
        with open_device(arguments.device) as device:
            locks, key = cache_dir() / "locks", lock_key(device)
            with device_lock(device.name, locks, wait_s=WAIT_S, on_wait=console.say, key=key):
                clean_device(device)
            print(printable(f"{device.name}: {device.workdir}/bundles is removed"))
    print(printable(f"{clean(cache_dir()):,} bytes are removed from {cache_dir()}"))
    return 0
