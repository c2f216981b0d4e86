"""What a run that was cut off says: where its measurements are, and the command that goes on with them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from devices.errors import DeviceError
from pipeline import runfolder
from pipeline.console import Console

STOPPED = 130

Lost = TypeVar("Lost", bound=DeviceError)


def with_resume(error: Lost, again: str) -> Lost:
    """The same error, whose hint ends with the command that goes on."""
    what = str(error).removesuffix(f"; try: {error.try_}")
    return type(error)(what, try_=f"{error.try_}, then {again}" if error.try_ else again)


@contextlib.contextmanager
def instead_of_bench(console: Console, again: Callable[[Path], str]) -> Iterator[None]:
    """Around a bench that another command makes: an error of the device says how that one goes on, where it can."""
    try:
        yield
    except DeviceError as error:
        if console.run_folder is None:
            raise
        what, words = str(error), shlex.join(["handset", "bench", "--resume", str(console.run_folder)])
        if words in what:
            raise type(error)(what.replace(words, again(console.run_folder))) from error
        if (console.run_folder / runfolder.RESULT).exists():
            raise with_resume(error, again(console.run_folder)) from error
        raise


def stopped(console: Console, again: str) -> int:
    """After Ctrl-C in a run that has a folder: says how to go on; the exit status."""
    console.say(f"stopped; what was measured is in {console.run_folder}; go on with: {again}")
    return STOPPED
