"""Top-1 on the device: the exported file is given real inputs there, and its answers come back as raw numbers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from devices.bundle import RuntimeBundle
from devices.errors import DeviceError
from devices.runner import Case, format_job, parse_results, read_lines
from devices.transport import Transport
from pipeline.deploy import Deployed, pull
from pipeline.errors import CheckFailed
from pipeline.export.base import storage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def device_logits(
    case: Deployed, inputs: NDArray[np.float32], device: Transport, bundle: RuntimeBundle, folder: Path
) -> NDArray[np.float32]:
    """(n, classes): what the runtime on the device answers to `inputs` (n, c, h, w), one by one.

    Raises: CheckFailed: the runner could not run the model, or gave another number of answers. DeviceError.
    """
    import numpy as np

    array = inputs.transpose(0, 2, 3, 1) if case.artifact.format == "tflite" and inputs.ndim == 4 else inputs
    scratch = f"{device.workdir}/infer-{os.getpid()}"
    job = Case(
        id=case.id, model=case.remote_path, runtime=case.runtime, library=case.library, delegate=case.delegate,
        input=f"{scratch}/input", output=f"{scratch}/output", log=f"{scratch}/log", limit_ns=600 * 10**9,
    )  # fmt: skip
    local = {name: folder / f".{case.id}.{name}" for name in ("input", "output", "job", "results")}
    try:
        with storage(folder):
            local["input"].write_bytes(np.ascontiguousarray(array, dtype="<f4").tobytes())
            local["job"].write_text(format_job([job], f"{scratch}/results", canary=False), "utf-8")
        device.push(local["input"], f"{scratch}/input")
        device.push(local["job"], f"{scratch}/job")
        ended = device.run([str(bundle.runner.path), f"{scratch}/job"], timeout_s=900)
        if ended.status != 0:
            raise DeviceError(
                f"the runner ended with status {ended.status}: {ended.stderr[-500:].decode(errors='replace')}"
            )
        pull(device, f"{scratch}/results", local["results"])
        result = parse_results(read_lines(str(local["results"]))).cases.get(case.id)
        if result is None:
            raise DeviceError(f"the runner reported nothing of {case.id}")
        if result.failed:
            raise CheckFailed(f"{case.id} could not be run on the device: {result.failed}")
        pull(device, f"{scratch}/output", local["output"])
        data = local["output"].read_bytes()
    finally:
        with contextlib.suppress(DeviceError):
            device.run(["rm", "-rf", scratch], timeout_s=30)
        for path in local.values():
            path.unlink(missing_ok=True)
    if not data or len(data) % (4 * len(inputs)):
        raise CheckFailed(f"{case.id} gave {len(data) / 4:g} numbers for {len(inputs)} inputs")
    return np.frombuffer(data, dtype="<f4").reshape(len(inputs), -1)
