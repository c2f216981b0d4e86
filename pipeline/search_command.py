"""`handset search`: which change to a network to make, by its accuracy and what a latency table says it takes."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments import positive
from pipeline.console import Console

if TYPE_CHECKING:
    from torch import nn

    from latency_luts import LatencyTable
    from pipeline.artifact import Network
    from pipeline.datasets import Dataset
    from pipeline.search import Price, Ranked, RankSearch
    from pipeline.search.rank_search import Cost
    from pipeline.subjects import Subject

METHODS = ("tucker2", "svd", "cp")
"""Of `pipeline.search.rank_space.AXES`, which is loaded only where it is needed."""
TRIALS = 100
MOST = 1_000_000
SUGGESTED = "sqlite:///ranks.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="WHAT")
    _add_ranks(actions.add_parser("ranks", help="ranks of a low-rank method, as a front of accuracy against cost"))


def _add_ranks(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Searches the ranks of all layers that a method makes smaller, by Optuna. Each trial decomposes the network, "
        "calibrates its batch normalisations on training images and judges it on others of them, never on the test images. "
        "What is found is a front: more accurate networks cost more. They cost milliseconds by --lut T, else MACs; those over "
        "the budget are not judged."
    )
    parser.add_argument("model", metavar="MODEL", help="a name from `handset models`, or file.py:function")
    parser.add_argument(
        "--data", required=True, metavar="D", help="digits, or cifar10:FOLDER with train.parquet and test.parquet"
    )
    parser.add_argument("--weights", default=None, metavar="FILE", help="as of `handset bench`")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help=f"({METHODS[0]})")
    parser.add_argument("--lut", type=Path, default=None, metavar="T", help="a latency table, a .parquet file")
    parser.add_argument("--budget-ms", type=positive, default=None, metavar="X", help="at most, by the table")
    parser.add_argument("--budget-macs", type=positive, default=None, metavar="X", help="at most; without a table")
    parser.add_argument(
        "--trials", type=_trials, default=TRIALS, metavar="N", help=f"of the study, older ones included ({TRIALS})"
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of what is tried (0)")
    parser.add_argument(
        "--storage", default=None, metavar="URL",
        help=f"a database that keeps the trials, {SUGGESTED}; several machines may share one (they are kept in memory)",
    )  # fmt: skip
    parser.add_argument("--study", default=None, metavar="NAME", help="the study's name in there (MODEL-METHOD)")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="DIR", help="an empty or new folder for the networks of the front, .pt2"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="all of it as a file")
    parser.set_defaults(command=_ranks)


def _trials(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number from 1 to {MOST:,}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number from 0 to {2**31 - 1:,}")
    return int(text)


def _ranks(arguments: argparse.Namespace) -> int:
    from latency_luts import load
    from pipeline.resume import STOPPED
    from pipeline.search import RankSearch
    from pipeline.search.rank_summary import print_front

    _check(arguments)
    console = Console()
    table = None if arguments.lut is None else load(arguments.lut)
    subject, dataset = _subject(arguments, console)
    network = subject.network
    assert network.module is not None
    search = RankSearch(
        method=arguments.method, trials=arguments.trials, budget=arguments.budget_ms or arguments.budget_macs,
        seed=arguments.seed, storage=arguments.storage, study=arguments.study or f"{network.name}-{arguments.method}",
        about=_about(arguments, dataset),
    )  # fmt: skip
    with console.stage(f"searching ranks of {network.name}") as step:
        found = search.run(
            network.module, network.input_shape, _judge(dataset), _macs(network) if table is None else _latency(network, table),
            lambda trial, count: step(f"{count} of {arguments.trials} trials{'' if trial.feasible else ', one too dear'}"),
        )  # fmt: skip
    print_front(network.name, search, found, table)
    _write(arguments, subject, dataset, search, found, table, {})
    if found.stopped:
        console.say(_stopped(arguments, len(found.trials)))
        return STOPPED
    if arguments.out is not None:
        with console.stage(f"writing {arguments.out}"):
            files = _save(arguments, network, dataset, found)
        _write(arguments, subject, dataset, search, found, table, files)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Before anything is read or searched. Raises: UsageError: options that do not fit. StorageError: not writable."""
    import os

    from pipeline.errors import StorageError, UsageError
    from pipeline.lut.convert_command import check_output

    read = [Path(arguments.model.rpartition(":")[0] or arguments.model), arguments.lut, arguments.weights]
    check_output("--json", arguments.json, [Path(path) for path in read if path is not None])
    if arguments.budget_ms is not None and arguments.lut is None:
        raise UsageError("--budget-ms was given without a table", try_="--lut T, or --budget-macs")
    if arguments.budget_macs is not None and arguments.lut is not None:
        raise UsageError("--budget-macs was given with a table, which tells milliseconds", try_="--budget-ms")
    out: Path | None = arguments.out
    if out is None:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is there, and is no empty folder", try_="another path")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise StorageError(f"cannot write into {out}", try_="--out with a path in a folder that is there and writable")


def _subject(arguments: argparse.Namespace, console: Console) -> tuple[Subject, Dataset]:
    """The network, and the data without its test images: some of those to train on are held out instead."""
    from pipeline.subjects import trainable

    subject, dataset = trainable(arguments.model, arguments.weights, arguments.data, console)
    assert dataset is not None
    return subject, dataset.held_out()


def _about(arguments: argparse.Namespace, dataset: Dataset) -> dict[str, str]:
    """What all trials of a study have in common, whatever machine they are from."""
    import hashlib

    from pipeline.artifact import sha256_file

    digest = hashlib.sha256()
    for values in (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y):
        digest.update(values.tobytes())
    table = "none, MACs" if arguments.lut is None else sha256_file(arguments.lut)[:16]
    return {"data": f"{dataset.name} {digest.hexdigest()[:16]}", "table": table}


def _judge(dataset: Dataset) -> Callable[[nn.Module], float]:
    from pipeline.evaluate import accuracy
    from pipeline.training import recalibrate

    def judge(module: nn.Module) -> float:
        recalibrate(module, dataset)
        return accuracy(module, dataset)

    return judge


def _macs(network: Network) -> Cost:
    from pipeline.graph import count

    return lambda module: count(module, network.input_shape).macs


def _latency(network: Network, table: LatencyTable) -> Cost:
    from pipeline.constraints import Latency
    from pipeline.search import Price

    latency = Latency(table)

    def price(module: nn.Module) -> Price:
        answer = latency.of(module, network.input_shape)
        missing = list(dict.fromkeys(answer.missing))
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        why = f"the table does not know {missing[0]}{more}" if missing else ""
        return Price(answer.latency_ms, answer.coverage, why)

    return price


def _save(arguments: argparse.Namespace, network: Network, dataset: Dataset, found: Ranked) -> dict[int, Path]:
    """Trial -> its network's file. Raises: ModelError: torch.export cannot trace one. StorageError: not written."""
    from pipeline.errors import StorageError
    from pipeline.export.program import save_program
    from pipeline.search.rank_space import decomposed
    from pipeline.training import recalibrate

    assert network.module is not None
    try:
        arguments.out.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {arguments.out}: {error.strerror}", try_="another --out") from error
    files = {}
    for trial in found.front:
        module = decomposed(network.module, arguments.method, trial.ranks)
        recalibrate(module, dataset)
        files[trial.number] = arguments.out / f"{network.name}_{arguments.method}_{trial.number}.pt2"
        save_program(module, network.input_shape, files[trial.number])
    return files


def _write(
    arguments: argparse.Namespace, subject: Subject, dataset: Dataset, search: RankSearch, found: Ranked,
    table: LatencyTable | None, files: Mapping[int, Path],
) -> None:  # fmt: skip
    """The front as a file, first without its networks: they may still fail to be written."""
    from pipeline.runfolder import write_json
    from pipeline.search.rank_summary import document

    if arguments.json is None:
        return
    about = None if table is None else {"path": str(arguments.lut), "context": dataclasses.asdict(table.context)}
    own = {"name": dataset.name, "train": len(dataset.train_y), "held_out": len(dataset.test_y)}
    write_json(arguments.json, document(subject, search, found, data=own, table=about, files=files))


def _stopped(arguments: argparse.Namespace, count: int) -> str:
    from pipeline.search.rank_study import shown

    kept = arguments.storage is not None
    options = {
        "--data": arguments.data, "--weights": arguments.weights, "--method": arguments.method, "--lut": arguments.lut,
        "--budget-ms": arguments.budget_ms, "--budget-macs": arguments.budget_macs, "--trials": arguments.trials,
        "--seed": arguments.seed, "--storage": shown(arguments.storage) if kept else SUGGESTED, "--study": arguments.study,
        "--out": arguments.out, "--json": arguments.json,
    }  # fmt: skip
    words = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    command = shlex.join(["handset", "search", "ranks", arguments.model, *words])
    if kept:
        return f"stopped; {count:,} trials are in the study; go on with: {command}"
    return f"stopped; {count:,} trials were in memory alone; keep them next time: {command}"
