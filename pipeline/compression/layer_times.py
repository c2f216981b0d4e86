"""What each layer of the networks took on the device: the kernels of a profile, found again in the network that was run.

A profile names its kernels by their keys alone. Which layer a key comes from is known beforehand (`pipeline.graph.kernels`):
the n-th kernel of a key in the one list is the n-th in the other. Where the two have a key a different number of times,
the layers that it comes from have no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from pipeline.console import Step
    from pipeline.graph import OpUse

Times = Mapping[str, Mapping[str, float]]
"""Runtime -> module -> ms of its kernels."""


def layer_times(files: Mapping[str, Path], bench: Mapping[str, Any], say: Step) -> dict[str, Times]:
    """Network -> its times, in each runtime that has run it.

    Args: files: network -> its .pt2. bench: the result document of `handset bench` of these networks.
    """
    from pipeline.graph import kernels
    from pipeline.spec import resolve

    found: dict[str, Times] = {}
    for name, path in files.items():
        say(name)
        network = resolve(str(path))
        assert network.module is not None
        times: dict[str, Mapping[str, float]] = {}
        for profile in bench["profiles"]:
            if profile["network"] != name or profile["failed"] is not None:
                continue
            try:
                uses = kernels(network.module, network.input_shape, profile["runtime"], abi=bench["device"]["abi"])
            except ModelError:  # what is not known beforehand has no layers
                continue
            times[profile["runtime"]] = by_module(uses, profile["kernels"])
        found[name] = times
    return found


def by_module(uses: Sequence[OpUse], profile: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Module -> ms of all its kernels; one with a kernel that the profile does not have is left out.

    Args: profile: as a result document has it, in the runtime's order.
    """
    told = _by_key((str(use.key), use.module) for use in uses)
    measured = _by_key((kernel["key"], kernel["latency_ms"]["corrected"]["median"]) for kernel in profile)
    unknown: set[str] = set()
    found: dict[str, float] = {}
    for key, modules in told.items():
        times = measured.get(key, [])
        if len(times) != len(modules):
            unknown.update(modules)
            continue
        for module, ms in zip(modules, times, strict=True):
            found[module] = found.get(module, 0.0) + ms
    return {module: ms for module, ms in found.items() if module not in unknown}


def _by_key(pairs: Iterable[tuple[str | None, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, value in pairs:
        if key is not None:
            found.setdefault(key, []).append(value)
    return found
