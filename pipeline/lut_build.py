"""Profile -> LatencyTable: the kernels that the measured networks have, each with its time inside a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devices.transport import DeviceDescription
from latency_luts import Context, Entry, LatencyTable, OpKey
from latency_luts.stats import median
from pipeline.deploy import Deployed
from pipeline.result import NamedKernel
from pipeline.settings import Settings
from pipeline.version import VERSION


def build_lut(
    device: DeviceDescription,
    case: Deployed,
    settings: Settings,
    clocks: str,
    created: str,
    kernels: Mapping[str, Sequence[NamedKernel]],
) -> LatencyTable:
    """A first table for one runtime, from the kernels of several networks.

    Args:
        case: any case of that runtime; says which library, version and delegate.
        kernels: network -> its kernels with their keys; kernels without a key are left out.

    A kernel that is met more than once has the median of its times; its interval reaches from the lowest end to the
    highest, because how far it differs from place to place is an honest part of what is not known.
    """
    met: dict[OpKey, list[tuple[str, NamedKernel]]] = {}
    for network, rows in kernels.items():
        for row in rows:
            if row.key is not None:
                met.setdefault(row.key, []).append((network, row))
    context = context_of(device, case, settings, clocks, created)
    return LatencyTable(context, tuple(_entry(key, rows) for key, rows in met.items()))


def context_of(
    device: DeviceDescription, case: Deployed, settings: Settings, clocks: str, created: str
) -> Context:
    """Where and how kernels were measured. Args: case: any of that runtime; clocks: what is known of them, in words."""
    return Context(
        device=device.name,
        soc=device.model,
        os_build=f"{device.os}, {device.kernel}",
        abi=device.abi,
        runtime=case.runtime,
        runtime_version=case.runtime_version,
        runtime_sha256=case.library_sha256,
        delegate=case.delegate,
        threads=settings.threads,
        cpu_mask=hex(settings.cpu_mask),
        clocks=clocks,
        handset_version=VERSION,
        created=created,
        simulated=device.simulated,
    )


def _entry(key: OpKey, rows: Sequence[tuple[str, NamedKernel]]) -> Entry:
    times = [row.times for _, row in rows]
    return Entry(
        key=key,
        latency_ns_median=1e3 * median([time.corrected_us for time in times]),
        interval_ns=(1e3 * min(time.low_us for time in times), 1e3 * max(time.high_us for time in times)),
        samples_ns=tuple(1000 * us for time in times for us in time.samples_us),
        networks=tuple(dict.fromkeys(network for network, _ in rows)),
        runtime_kernel=rows[0][1].runtime_kernel,
    )
