"""What a result holds, typed: estimates, kernels, profiles, networks. Texts in here are clean, numbers are finite.

`document.read` makes these from a result document; everything that writes or draws reads only them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifact import Parity


@dataclass(frozen=True)
class Estimate:
    """A median in ms with the ends of its interval."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval as a share of the median, as the verdict of a measurement counts it."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0

    def overlaps(self, other: Estimate) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Kernel:
    """`share` is of the kernels' sum, 0 ... 1."""

    index: int
    name: str
    op: str
    runtime_kernel: str
    key: str | None
    plain: Estimate
    corrected: Estimate | None
    share: float
    macs: float | None


@dataclass(frozen=True)
class Artifact:
    file: str
    sha256: str
    bytes: float | None
    converter: str
    parity: Parity | None


@dataclass(frozen=True)
class Around:
    """The state of the device before or after all measurements; None and an empty list: it could not be read."""

    load1: float | None
    temperature_c: float | None
    clocks_khz: list[float]


@dataclass(frozen=True)
class BlockEnd:
    """Where and how fast the core ran at an end of one block of samples."""

    core: float | None
    clock_khz: float | None


@dataclass(frozen=True)
class Canary:
    """What the canary took beside this profile, ns, what it is scaled to, and how closely the samples follow it."""

    reference_ns: float
    origin: str
    own_ns: float | None
    exponent: float


@dataclass(frozen=True)
class Measured:
    """One profile that succeeded. The lists `canary_ns` to `kept` are empty or as long as `samples_ns`."""

    plain: Estimate
    corrected: Estimate | None
    confidence: float
    samples_ns: list[float]
    canary_ns: list[float]
    start_ns: list[float]
    preempted: list[float]
    launch: list[float]
    block: list[float]
    kept: list[float]
    warmup_ns: list[float]
    canary: Canary | None
    launch_medians_ms: list[float]
    preempted_share: float | None
    disturbed_share: float | None
    profiled: Estimate | None
    kernels_sum_ms: float | None
    kernels_sum_plain_ms: float | None
    profiler_cost_ms: float | None
    between_kernels_ms: float | None
    kernels: list[Kernel]
    kernels_missing: str
    peak_memory_bytes: float | None
    model_load_ms: float | None
    around: list[Around]
    block_ends: list[BlockEnd]
    stable: bool
    verdict: str
    reasons: list[str]
    next: str

    @property
    def best(self) -> Estimate:
        """The noise-corrected median where there is one, else the plain one."""
        return self.corrected or self.plain


@dataclass(frozen=True)
class Numerics:
    """What a device answered to real inputs, against a reference. None: not known, or not a finite number.

    `inputs` is 0 where there was nothing to compare with; `reference` then says why. `agrees` is the verdict of the run.
    """

    reference: str
    inputs: float
    input_names: list[str]
    max_abs_error: float | None
    relative_error: float | None
    cosine: float | None
    top1_agreement: float | None
    tolerance: float | None
    agrees: bool
    accuracy: float | None


@dataclass(frozen=True)
class Profile:
    """A network in a runtime. Exactly one of `failed` and `measured` says something."""

    network: str
    runtime: str
    label: str
    runtime_version: str
    runtime_sha256: str
    delegate: str
    artifact: Artifact | None
    threads: float | None
    cpu_mask: str
    bundle: str
    numerics: Numerics | None
    failed: str
    measured: Measured | None

    @property
    def mismatch(self) -> bool:
        """Whether it was timed although its answers on the device are wrong."""
        return self.measured is not None and self.numerics is not None and not self.numerics.agrees


@dataclass(frozen=True)
class Accuracy:
    data: str
    metric: str
    torch: float | None
    by_runtime: dict[str, float]


@dataclass(frozen=True)
class Layer:
    name: str
    ranks: str
    params_before: float | None
    params_after: float | None
    relative_error: float | None


@dataclass(frozen=True)
class NetworkRow:
    name: str
    source: str
    input_shape: list[float]
    params: float | None
    macs: float | None
    accuracy: Accuracy | None
    compressed_from: str
    method: str
    layers: list[Layer]


@dataclass(frozen=True)
class Moment:
    """What the device said of itself at one time of a run, seconds after its begin."""

    at_s: float
    clock_khz: dict[str, float]
    temperature_c: float | None
    thermal_status: float | None
    load1: float | None


@dataclass(frozen=True)
class DeviceConditions:
    """What was set on the device for the run, (knob, state), how it fared, and how often it was started anew meanwhile."""

    knobs: list[tuple[str, str]]
    trace: list[Moment]
    restarts: int


@dataclass(frozen=True)
class Bench:
    run: str
    created: str
    command: str
    handset: str
    complete: bool
    device: dict[str, str]
    device_name: str
    simulated: bool
    memory_bytes: float | None
    settings: dict[str, str]
    runner: dict[str, str]
    canary_kind: str
    disturbed_over: float | None
    tables: dict[str, str]
    notes: list[str]
    stages_s: dict[str, float]
    networks: list[NetworkRow]
    profiles: list[Profile]
    conditions: DeviceConditions | None
    bundles: list[tuple[str, str]]

    def of(self, network: str) -> list[Profile]:
        return [profile for profile in self.profiles if profile.network == network]
