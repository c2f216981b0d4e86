"""Looking at the device around the launches of a run: is it quiet, what is it like, which cores to use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devices.conditions import Gates, cpu_mask, read_conditions, wait_until_quiet, watch_paths
from devices.errors import DeviceLost
from devices.runner import RunnerResult
from devices.transport import Transport
from pipeline.console import Console
from pipeline.device_trace import note_conditions, noted_conditions, trace_document
from pipeline.profiling import launch_files
from pipeline.settings import Settings


def begun(folder: Path) -> bool:
    """Whether a launch of a run was begun: what it measured may still lie on the device."""
    return bool(noted_conditions(folder))


class Watching:
    """Args: gates: what the device must be like before each launch; None takes it as it is."""

    def __init__(self, device: Transport, folder: Path, gates: Gates | None, settle_s: float, console: Console) -> None:
        self._device, self._folder, self._console = device, folder, console
        self._gates, self._settle_s = gates, settle_s
        self.paths = tuple(watch_paths(device))

    def settle_cores(self, settings: Settings) -> Settings:
        """The settings with a mask: the one that was asked for, else what the device's own capacities say."""
        if settings.cpu_mask:
            return settings
        return dataclasses.replace(settings, cpu_mask=cpu_mask(self._device, settings.threads))

    def before_launch(self, number: int) -> None:
        """Waits until the device is quiet, and writes down what it is like.

        Raises: NotQuiet: it did not become so within the time; DeviceLost; StorageError.
        """
        if self._gates is None:
            return self.note(number)
        with self._console.waiting() as on_wait:
            seen = wait_until_quiet(self._device, self._gates, self._settle_s, on_wait)
        note_conditions(self._folder, number, seen[-1], self.paths)
        return None

    def note_end(self, number: int) -> None:
        """Writes down what the device is like after the last launch, before which there were `number`; where it is lost
        only now, all that was measured is here, and that is told instead."""
        try:
            self.note(number)
        except DeviceLost as error:
            self._console.say(str(error))

    def note(self, number: int) -> None:
        """Writes down what the device is like before launch `number`."""
        note_conditions(self._folder, number, read_conditions(self._device), self.paths)

    def document(self, results: Sequence[RunnerResult], knobs: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        numbers = [int(path.stem.removeprefix("launch-")) for path in launch_files(self._folder)]
        return trace_document(noted_conditions(self._folder), numbers, results, knobs)
