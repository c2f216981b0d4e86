"""What can go wrong, sorted by who must act.

    HandsetError                  one line: what was asked, what was found, what to try
    ├── UsageError         (2)    the caller: an unknown name, a wrong value, a combination that cannot be
    ├── ModelError         (2)    the network: no model in the file, cut short, dynamic shape, refused format
    │   └── UnsupportedOp  (2)    the network uses an op that the converter or the runtime does not have (named)
    ├── CheckFailed        (1)    a check said no: parity, accuracy, every case failed
    ├── StorageError       (1)    the disk: full, read-only, no permission; nothing half-written stays
    └── Unstable           (4)    measured, but the machine was too noisy for the interval that was asked

The number is the exit status. The leaves raise their own errors (`devices.errors`, `latency_luts.errors`), which
carry `exit_status` too; the command line prints any of them as one line and never a traceback.
"""

from __future__ import annotations


class HandsetError(Exception):
    """Base of all our errors.

    Args:
        message: what was asked and what was found, one sentence without a full stop.
        try_: the next thing to do.

    The text of the error is both.
    """

    exit_status = 1

    def __init__(self, message: str, *, try_: str = "") -> None:
        super().__init__(f"{message}; try: {try_}" if try_ else message)
        self.message, self.try_ = message, try_


class UsageError(HandsetError):
    exit_status = 2


class ModelError(HandsetError):
    exit_status = 2


class UnsupportedOp(ModelError):
    pass


class CheckFailed(HandsetError):
    exit_status = 1


class StorageError(HandsetError):
    exit_status = 1


class Unstable(HandsetError):
    exit_status = 4
