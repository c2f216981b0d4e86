"""The on-device runner's job file: many cases, one `key value` a line. Its reader is `native/job.c`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from devices.errors import DeviceError

MAX_LINE_BYTES = 8000
MAX_WATCHED = 64


@dataclass(frozen=True)
class Case:
    """One model in one runtime. Paths are the device's. Times in ns; zero or empty means: not set.

    Args:
        group: cases of one group (adjacent in the job) are loaded together and interleaved.
        block_ns, block_samples: a block ends when both are reached.
        max_ns: the time inside inferences and canaries after which no new block is begun.
        limit_ns: a load or an inference that takes longer has hung; the case is given up.
        memory_bytes: limit on the address space of the case's process.
        input, output: raw tensors to run instead of timing, and where the raw outputs go.
    """

    id: str
    model: str
    runtime: str
    library: str
    delegate: str = ""
    group: int = 0
    threads: int = 1
    cpu_mask: int = 0
    profile: bool = False
    profile_prefix: str = ""
    optimized_model: str = ""
    log: str = ""
    input: str = ""
    output: str = ""
    warmup_ns: int = 200_000_000
    warmup_samples: int = 3
    block_ns: int = 100_000_000
    block_samples: int = 3
    min_samples: int = 1
    max_samples: int = 100_000
    max_ns: int = 1_000_000_000
    limit_ns: int = 60_000_000_000
    memory_bytes: int = 0


def format_job(
    cases: Sequence[Case],
    results: str,
    *,
    seed: int = 1,
    canary: bool = True,
    watch: Sequence[str] = (),
    watch_ns: int = 1_000_000_000,
) -> str:
    """The text of a job file.

    Args:
        watch: at most 64 files of the device whose first line is read at the start, at the end and between blocks.
        watch_ns: not more often than that.

    Raises: DeviceError: a line holds what the format cannot carry: a line break, a NUL, too many bytes; or an id is not
    plain text, so that its results could not be told from another's; or there are too many paths to watch.
    """
    if len(watch) > MAX_WATCHED:
        raise DeviceError(f"the runner can watch {MAX_WATCHED} files, not {len(watch)}")
    lines = ["handset-job 1", f"results {results}", f"seed {seed}", f"canary {int(canary)}"]
    if not all(watch):
        raise DeviceError("the runner cannot watch a file without a name")
    lines += [f"watch_ns {watch_ns}", *(f"watch {path}" for path in watch)] if watch else []
    for case in cases:
        lines.append(f"case {case.id}")
        for item in dataclasses.fields(case):
            value = getattr(case, item.name)
            if item.name != "id" and value != "" and not (item.name == "cpu_mask" and value == 0):
                lines.append(f"{item.name} {int(value) if isinstance(value, bool) else value}")
    for line in lines:
        if not _fits(line):
            what = f"a line break, no plain text, or more than {MAX_LINE_BYTES} bytes"
            raise DeviceError(f"the runner cannot take {line[:80]!r}: {what}")
    return "\n".join(lines) + "\n"


def _fits(line: str) -> bool:
    if line.startswith("case ") and not (line.isascii() and line.isprintable()):
        return False
    try:
        return not set("\n\r\0") & set(line) and len(line.encode()) <= MAX_LINE_BYTES
    except UnicodeEncodeError:
        return False
