"""What a compression was asked for: from the command line, in the plan of its run folder, and as a command line again."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.compression.budget import Budget, parse
from pipeline.compression.methods import settings_of
from pipeline.errors import UsageError
from pipeline.request import check_kind, read_text, read_texts
from pipeline.version import VERSION

KIND = "compress"


@dataclass(frozen=True)
class Tuning:
    """How networks are trained after, or while, they are compressed; see `pipeline.training.Recipe`.

    Args:
        epochs: after each round.
        original_epochs: 0: the schedule is of these epochs. Else `lr` and `schedule` are those of the original training, which
            took so many, and its last `epochs` are run again: learning rate rewinding.
        every: steps between two distortions of DeepTwist; 0: once an epoch.
        distill: the share of the loss in which the network as it was is the teacher, 0 ... 1.
    """

    epochs: int = 0
    lr: float = 0.02
    schedule: str = "cosine"
    original_epochs: int = 0
    warmup: float = 0.0
    batch_size: int = 128
    weight_decay: float = 5e-4
    threads: int = 1
    on: str = "cpu"
    bfloat16: bool = False
    every: int = 200
    distill: float = 0.0


@dataclass(frozen=True)
class Asked:
    """What was asked.

    Args:
        methods: words of `pipeline.compression.methods`.
        budgets: texts of `pipeline.compression.budget`; each method is tried with each.
        weights: a file with the network's weights, or empty.
        data: what it is trained and judged on, as `pipeline.datasets.load` takes it, or empty.
        held_out: judged by a tenth of the training images, which are not trained on: to choose settings by.
        seeds: so many trainings of each, 0, 1, ...
        rounds: in so many steps to the budget, retraining after each; 1 is one-shot.
        lut: a latency table, or empty.
        device, runtimes: where it is measured; no device: nowhere.
        measure_s: seconds of timed inference at most for a network in a runtime.
        resume: the run folder to go on with.
    """

    methods: tuple[str, ...]
    model: str
    budgets: tuple[str, ...]
    reports: Path
    weights: str = ""
    data: str = ""
    held_out: bool = False
    tuning: Tuning = dataclasses.field(default_factory=Tuning)
    seeds: int = 1
    rounds: int = 1
    lut: str = ""
    device: str = "host"
    runtimes: tuple[str, ...] = ()
    measure_s: float = 6.0
    resume: Path | None = None

    def check(self) -> None:
        """Raises: UsageError: things that do not go together, before minutes of work."""
        budgets = [parse(text) for text in self.budgets]
        for word in self.methods:
            name, settings = settings_of(word)
            if name == "deeptwist" and not (self.data and self.tuning.epochs):
                raise UsageError(f"{word} is a way to train", try_="--data D --finetune-epochs N")
            if name == "deeptwist" and self.rounds > 1:
                raise UsageError(f"{word} was asked in {self.rounds} rounds, and has one", try_="without --rounds")
            inner = settings.get("method", name) if name == "deeptwist" else name
            for one in budgets:
                if one.kind == "evbmf" and inner in ("alds", "cp", "tiled_svd"):
                    raise UsageError(f"{word} has no ranks by EVBMF", try_="a budget such as 25%, or tucker2 or svd")
                if one.kind == "energy" and inner == "alds":
                    raise UsageError(
                        f"{word} was given an energy, which says nothing of k", try_="a budget such as 25%"
                    )
        if self.tuning.epochs and not self.data:
            raise UsageError(
                f"{self.tuning.epochs} epochs were asked without data", try_="--data digits or cifar10:FOLDER"
            )
        if self.held_out and not self.data:
            raise UsageError("--held-out was asked without data", try_="--data digits or cifar10:FOLDER")
        if any(one.unit == "ms" and one.kind == "amount" for one in budgets) and not self.lut:
            raise UsageError("a budget in ms was asked without a latency table", try_="--lut T.parquet")
        if any(one.unit == "ms" and one.kind == "keep" for one in budgets):
            raise UsageError("a share of milliseconds is no budget", try_="a number of them, such as 0.4ms")
        if self.rounds > 1:
            if not self.tuning.epochs:
                raise UsageError(f"{self.rounds} rounds were asked without retraining", try_="--finetune-epochs N")
            for one in budgets:
                if one.kind != "keep":
                    raise UsageError(f"rounds were asked with the budget {one.text}", try_="a share, such as 25%")

    def trials(self) -> Iterator[tuple[str, Budget, int]]:
        """(method, budget, seed) in the order in which they are made."""
        for seed in range(self.seeds if self.tuning.epochs else 1):
            for word in self.methods:
                for text in self.budgets:
                    yield word, parse(text), seed


def plan_of(asked: Asked) -> dict[str, Any]:
    """What a run that is to go on needs to know."""
    own = dataclasses.asdict(asked)
    return {"kind": KIND, "handset": VERSION, **{key: own[key] for key in own if key not in ("reports", "resume")}}


def planned(plan: Mapping[str, Any], folder: Path) -> Asked:
    """The request of a run that is to go on. Raises: UsageError: the plan is damaged, or that of another command."""
    check_kind(plan, KIND, folder)
    try:
        tuning = plan["tuning"]
        usual = dataclasses.asdict(Tuning())
        if set(tuning) != set(usual) or any(type(tuning[key]) is not type(usual[key]) for key in usual):
            raise TypeError("its training")
        numbers = {key: plan[key] for key in ("seeds", "rounds")}
        if not all(type(value) is int and 1 <= value <= 1024 for value in numbers.values()):
            raise TypeError("its seeds or rounds")
        if type(plan["held_out"]) is not bool:
            raise TypeError("its held_out")
        asked = Asked(
            methods=read_texts(plan, "methods"), model=read_text(plan["model"]), budgets=read_texts(plan, "budgets"),
            reports=folder.parent, weights=read_text(plan["weights"]), data=read_text(plan["data"]),
            held_out=plan["held_out"], tuning=Tuning(**tuning), lut=read_text(plan["lut"]),
            device=read_text(plan["device"]), runtimes=read_texts(plan, "runtimes"),
            measure_s=float(plan["measure_s"]), resume=folder, **numbers,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the plan of {folder} is damaged: {error}", try_="a new run") from error
    asked.check()
    return asked


def command_of(asked: Asked) -> str:
    """The command line that asks for the same again."""
    tuning, usual, own = asked.tuning, Tuning(), Asked((), "", (), Path())
    words = ["handset", "compress", ",".join(asked.methods), asked.model, "--budget", ",".join(asked.budgets)]
    options = (
        ("--weights", asked.weights, ""),
        ("--data", asked.data, ""),
        ("--finetune-epochs", tuning.epochs, usual.epochs),
        ("--lr", f"{tuning.lr:g}", f"{usual.lr:g}"),
        ("--schedule", tuning.schedule, usual.schedule),
        ("--rewind", tuning.original_epochs, usual.original_epochs),
        ("--warmup", f"{tuning.warmup:g}", f"{usual.warmup:g}"),
        ("--batch-size", tuning.batch_size, usual.batch_size),
        ("--weight-decay", f"{tuning.weight_decay:g}", f"{usual.weight_decay:g}"),
        ("--threads", tuning.threads, usual.threads),
        ("--on", tuning.on, usual.on),
        ("--every", tuning.every or "epoch", usual.every),
        ("--distill", f"{tuning.distill:g}", f"{usual.distill:g}"),
        ("--seeds", asked.seeds, own.seeds),
        ("--rounds", asked.rounds, own.rounds),
        ("--lut", asked.lut, ""),
        ("--device", asked.device or own.device, own.device),
        ("--runtime", ",".join(asked.runtimes), ""),
        ("--measure-seconds", f"{asked.measure_s:g}", f"{own.measure_s:g}"),
    )
    words += [word for name, value, default in options if value != default for word in (name, str(value))]
    flags = (
        ("--held-out", asked.held_out), ("--bfloat16", tuning.bfloat16), ("--no-measure", not asked.device),
    )  # fmt: skip
    return shlex.join([*words, *(name for name, is_set in flags if is_set)])
