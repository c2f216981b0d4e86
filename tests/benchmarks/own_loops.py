"""The loop that anybody would write, in the runtime's own Python API: what handset's medians are compared with.

usage: own_loops.py RUNTIME MODEL MASK SECONDS [SAMPLES]      prints the samples in ns as a JSON list
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable


def onnxruntime_call(path: str) -> Callable[[], object]:
    import numpy as np

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {one.name: np.random.default_rng(1).random(one.shape, dtype=np.float32) for one in session.get_inputs()}
    return lambda: session.run(None, feed)


def litert_call(path: str) -> Callable[[], object]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], np.random.default_rng(1).random(one["shape"], dtype=np.float32))
    return interpreter.invoke


def main() -> None:
    runtime, path, mask, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3], 0), float(sys.argv[4])
    at_most = int(sys.argv[5]) if len(sys.argv) > 5 else 10**9
    os.sched_setaffinity(0, [core for core in range(64) if mask >> core & 1])
    call = {"onnxruntime": onnxruntime_call, "litert": litert_call}[runtime](path)
    warm = time.perf_counter() + 0.3
    while time.perf_counter() < warm:
        call()
    samples: list[int] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(samples) < at_most:
        start = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - start)
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
