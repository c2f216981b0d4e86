"""What a table is made of: one measured kernel, and where and how all of them were measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from latency_luts.errors import InvalidTable
from latency_luts.key import OpKey, short

MAX_CHARS = 1000  # of one text in a context or an entry
_MAX_NS = 2**63 - 1


@dataclass(frozen=True)
class Context:
    """Where and how the kernels were measured. Latencies of two contexts are never mixed.

    Args:
        device, soc, os_build, abi: names, as the device gives them; only `device` must not be empty.
        runtime, runtime_version, runtime_sha256: of the library that ran the kernels; `runtime` must not be empty.
        delegate: "" for none, "xnnpack", ...
        threads: at least 1.
        cpu_mask: the cores it was pinned to ("0x2"), "" where it was not pinned.
        clocks: what is known of the clocks, in words: "2600000 kHz locked", "not readable".
        handset_version: of the program that measured.
        created: when the table was made, ISO 8601 ("2026-11-21T14:22:33Z").
        simulated: the device was simulated or replayed; the numbers are not measurements.

    Raises:
        InvalidTable: a field has the wrong type or is out of range.
    """

    device: str
    soc: str
    os_build: str
    abi: str
    runtime: str
    runtime_version: str
    runtime_sha256: str
    delegate: str
    threads: int
    cpu_mask: str
    clocks: str
    handset_version: str
    created: str
    simulated: bool

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if each.name not in ("threads", "simulated"):
                _check_text("context", each.name, getattr(self, each.name))
        for name in ("device", "runtime"):
            if not getattr(self, name):
                raise _invalid("context", name, "", "a name")
        if type(self.threads) is not int or self.threads < 1:
            raise _invalid("context", "threads", self.threads, "an int of at least 1")
        if type(self.simulated) is not bool:
            raise _invalid("context", "simulated", self.simulated, "True or False")
        try:
            datetime.fromisoformat(self.created)
        except ValueError:
            raise _invalid("context", "created", self.created, "a date and time in ISO 8601") from None


@dataclass(frozen=True)
class Entry:
    """One measured kernel.

    Args:
        latency_ns_median: the median, corrected for the machine's noise. It can be 0 where the runtime's clock is coarse;
            that it was measured is what `samples_ns` shows, so that cannot be empty.
        interval_ns: (low, high) of the median. A resampled interval can miss the median by a rounding, so only
            0 <= low <= high is demanded.
        samples_ns: all raw samples, in the order in which they were taken, uncorrected.
        networks: where the kernel was met, each once; empty for a kernel timed alone.
        runtime_kernel: the runtime's own name of what it ran.
        warm_ns: its time in a small network (see `latency_luts.warmth`), as `latency_ns_median` is that in a large one; None
            where that was not measured.

    Raises:
        InvalidTable: a field has the wrong type or is out of range.
    """

    key: OpKey
    latency_ns_median: float
    interval_ns: tuple[float, float]
    samples_ns: tuple[int, ...]
    networks: tuple[str, ...]
    runtime_kernel: str
    warm_ns: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, OpKey):
            raise _invalid("entry", "key", self.key, "an OpKey")
        if not _is_duration(self.latency_ns_median):
            raise _invalid("entry", "latency_ns_median", self.latency_ns_median, "a finite number of at least 0")
        ends = self.interval_ns
        if not isinstance(ends, tuple) or len(ends) != 2 or not all(map(_is_duration, ends)) or ends[0] > ends[1]:
            raise _invalid("entry", "interval_ns", ends, "(low, high) with 0 <= low <= high, both finite")
        if not isinstance(self.samples_ns, tuple) or not self.samples_ns:
            raise _invalid("entry", "samples_ns", self.samples_ns, "a tuple of at least one int")
        if self.warm_ns is not None:
            if not _is_duration(self.warm_ns):
                raise _invalid("entry", "warm_ns", self.warm_ns, "a finite number of at least 0, or None")
            object.__setattr__(self, "warm_ns", float(self.warm_ns))
        # One number type, so that a table read back is equal to the one that was written.
        object.__setattr__(self, "latency_ns_median", float(self.latency_ns_median))
        object.__setattr__(self, "interval_ns", (float(ends[0]), float(ends[1])))
        for sample in self.samples_ns:
            if type(sample) is not int or not 0 <= sample <= _MAX_NS:
                raise _invalid("entry", "samples_ns", sample, "made of ints of at least 0 that fit 64 bits")
        if not isinstance(self.networks, tuple):
            raise _invalid("entry", "networks", self.networks, "a tuple of names")
        for name in self.networks:
            _check_text("entry", "networks", name)
        if len(set(self.networks)) < len(self.networks) or "" in self.networks:
            raise _invalid("entry", "networks", self.networks, "a tuple of names, each once and none empty")
        _check_text("entry", "runtime_kernel", self.runtime_kernel)


def _invalid(what: str, name: str, value: object, wanted: str) -> InvalidTable:
    return InvalidTable(f"a table's {what} was asked with {name}={short(value)}, which is not {wanted}")


def _check_text(what: str, name: str, value: object) -> None:
    # Control characters are refused: these texts are printed on terminals and in reports.
    if not isinstance(value, str) or len(value) > MAX_CHARS or not value.isprintable():
        raise _invalid(what, name, value, f"a printable text of at most {MAX_CHARS} characters")


def _is_duration(value: object) -> bool:
    return type(value) is not bool and isinstance(value, (int, float)) and 0 <= value <= _MAX_NS  # refuses nan, inf
