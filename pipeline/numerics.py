"""Does a device compute what torch computes? Real inputs go there, its raw answers come back and are compared.

A case that disagrees is not worth a latency: the bench does not time it unless it is told to.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from devices.errors import DeviceError
from devices.install import Installed
from devices.runner import Case, CaseResult, format_job, parse_results, read_lines
from devices.transport import Transport
from pipeline.agreement import Accuracy, Agreement, Answer, accuracy_row, as_document, compare
from pipeline.artifact import Network
from pipeline.collect import ended_badly, last_words
from pipeline.deploy import Deployed, bringing_home
from pipeline.export.base import storage
from pipeline.reference_outputs import Reference, as_bytes, reference_of

__all__ = ["Accuracy", "Agreement", "accuracy_row", "as_document", "check_on_device"]

LIMIT_S = 300.0
"""For loading a model, and for all inferences of one case: an emulator is fifty times slower than what it emulates."""

LOGS_BYTES = 64 << 20
"""Room for what the runtimes say, beside the outputs."""

RESULTS = "results.jsonl"


def check_on_device(
    cases: Sequence[Deployed],
    networks: Mapping[str, Network],
    device: Transport,
    installed: Mapping[str, Installed],
    folder: Path,
    cpu_mask: int = 0,
) -> dict[str, Agreement]:
    """Runs every case on real inputs, one start of the runner a bundle; case id -> what came of it.

    Args:
        networks: by name, those of the cases.
        installed: bundle kind -> that bundle on the device.
        folder: where inputs and outputs lie for as long as this takes; its name names the folder on the device.

    Raises: DeviceError: the runner failed as a whole, its results are damaged, the link was lost. StorageError.
    """
    wanted = {case.artifact.network: case for case in cases}
    references = {name: reference_of(networks[name], case.artifact) for name, case in wanted.items()}
    asked = [case for case in cases if references[case.artifact.network].outputs]
    scratch, here = f"{device.workdir}/check-{folder.name}", folder / ".check"
    answers: dict[str, Answer] = {}
    shutil.rmtree(here, ignore_errors=True)  # of a run that was killed
    try:
        with storage(here):
            here.mkdir()
            inputs = {case.id: _write_input(references[case.artifact.network], networks, case, here) for case in asked}
        if asked:
            device.push_many({path.name: path for path in inputs.values()}, f"{scratch}/inputs")
        for kind in dict.fromkeys(case.bundle for case in asked):
            some = [case for case in asked if case.bundle == kind]
            jobs = [
                _job(case, number, f"{scratch}/inputs/{inputs[case.id].name}", f"{scratch}/{kind}", cpu_mask)
                for number, case in enumerate(some)
            ]
            sizes = sum(_size(references[case.artifact.network]) for case in some)
            answers |= _run(jobs, device, installed[kind], f"{scratch}/{kind}", here / kind, sizes)
        return {
            case.id: compare(case.id, references[case.artifact.network], answers.get(case.id, Answer()))
            for case in cases
        }
    finally:
        shutil.rmtree(here, ignore_errors=True)
        with contextlib.suppress(DeviceError):
            device.run(["rm", "-rf", scratch], timeout_s=30)


def _write_input(reference: Reference, networks: Mapping[str, Network], case: Deployed, here: Path) -> Path:
    """The inputs of a case as a file that is called after its content: cases share it where they can."""
    data = as_bytes(reference.inputs, networks[case.artifact.network], case.artifact.format)
    path = here / hashlib.sha256(data).hexdigest()[:32]
    if not path.exists():
        path.write_bytes(data)
    return path


def _size(reference: Reference) -> int:
    return sum(values.nbytes for _, values in reference.outputs)


def _job(case: Deployed, number: int, input: str, scratch: str, cpu_mask: int) -> Case:
    return Case(
        id=case.id, model=case.remote_path, runtime=case.runtime, library=case.library, delegate=case.delegate,
        group=number,  # a group is loaded together, and one model at a time needs the least memory
        cpu_mask=cpu_mask, input=input, output=f"{scratch}/{number}.out", log=f"{scratch}/{number}.log",
        limit_ns=int(LIMIT_S * 1e9),
    )  # fmt: skip


def _run(
    jobs: Sequence[Case], device: Transport, installed: Installed, scratch: str, here: Path, output_bytes: int
) -> dict[str, Answer]:
    """One start of the runner, and what it left in `scratch` brought home into the new folder `here`."""
    job = here.with_name(f"{here.name}.job")
    with storage(job):
        job.write_text(format_job(jobs, f"{scratch}/{RESULTS}", canary=False), "utf-8")
    device.push(job, f"{scratch}/job")
    ended = device.run([*installed.start, f"{scratch}/job"], timeout_s=60 + 2 * LIMIT_S * len(jobs))
    if ended.status != 0:
        raise ended_badly(ended)
    with bringing_home(here):
        # twice the outputs: a device that gives more than was expected is told so by name, not by this bound
        names = device.pull_folder(scratch, here, max_bytes=2 * output_bytes + LOGS_BYTES)
    if RESULTS not in names:
        raise DeviceError(f"the runner left no results in {scratch}")
    results = parse_results(read_lines(str(here / RESULTS))).cases
    return {one.id: _answer(one, results.get(one.id), here) for one in jobs}


def _answer(job: Case, result: CaseResult | None, here: Path) -> Answer:
    if result is None:
        return Answer(failed="the runner reported nothing of it")
    if result.failed:
        words = last_words(here / Path(job.log).name)
        return Answer(failed=f"{result.failed}; {words}" if words else result.failed)
    tensors = tuple((str(one.get("name", "")), one.get("bytes")) for one in result.outputs)
    output = here / Path(job.output).name
    if not tensors or any(type(size) is not int or size < 0 for _, size in tensors) or not output.is_file():
        return Answer(failed="the runner did not tell its outputs")
    return Answer(output.read_bytes(), tuple((name, int(size or 0)) for name, size in tensors))
