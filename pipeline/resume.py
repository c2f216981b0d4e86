"""What a run that was cut off says: where its measurements are, and the command that goes on with them."""

from __future__ import annotations

from typing import TypeVar

from devices.errors import DeviceError
from pipeline.console import Console

STOPPED = 130

Lost = TypeVar("Lost", bound=DeviceError)


def with_resume(error: Lost, again: str) -> Lost:
    """The same error, whose hint ends with the command that goes on."""
    what = str(error).removesuffix(f"; try: {error.try_}")
    return type(error)(what, try_=f"{error.try_}, then {again}" if error.try_ else again)


def stopped(console: Console, again: str) -> int:
    """After Ctrl-C in a run that has a folder: says how to go on; the exit status."""
    console.say(f"stopped; what was measured is in {console.run_folder}; go on with: {again}")
    return STOPPED
