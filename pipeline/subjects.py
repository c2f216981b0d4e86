"""What the command line named -> the networks of a run, and what each of them can run in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Network, sha256_file
from pipeline.console import Console
from pipeline.default_set import DEFAULT_SET, compressed_digits
from pipeline.deploy import RUNTIME_FORMATS, Target
from pipeline.errors import ModelError, UsageError

if TYPE_CHECKING:
    from pipeline.datasets import Dataset

TOLD, LISTED = 3, 1000
"""Keys of a weights file without a place that a terminal is told of, and that the result lists."""


@dataclass(frozen=True)
class Subject:
    """One network of a run with what is known of it before it is measured.

    Args:
        weights: of the file that `network` has its weights from: its name, its SHA-256 and what was placed; None: none.
    """

    network: Network
    macs: int | None = None
    compressed_from: str | None = None
    compression: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Any] | None = None
    weights: Mapping[str, Any] | None = None


def subjects_of(models: Sequence[str], console: Console, weights: Sequence[str] = ()) -> list[Subject]:
    """The networks, the default set where none is named; nothing is written yet.

    Args:
        weights: FILE for a single model, or MODEL=FILE.

    Raises: UsageError: two have one name, or weights are for none. ModelError: there is no such model, or it fails on its
    input, or its weights are of another one.
    """
    from pipeline.spec import resolve

    files = weights_files(models, weights)
    subjects: list[Subject] = []
    for text in models or DEFAULT_SET:
        with console.stage(f"preparing {text}"):
            loaded = None
            if text in files:
                network, loaded = _with_weights(text, files[text], console)
            else:
                network = resolve(text)
            if any(subject.network.name == network.name for subject in subjects):
                raise UsageError(f"two of the models are called {network.name}", try_="rename one of the files")
            subjects.append(dataclasses.replace(_subject(network), weights=loaded))
            if not models and text == "digits_cnn":
                smaller, compression = compressed_digits(network)
                subjects.append(dataclasses.replace(_subject(smaller), compressed_from=text, compression=compression))
    return subjects


def trainable(model: str, weights: str | None, data: str, console: Console) -> tuple[Subject, Dataset | None]:
    """A network of layers that can be replaced, and the data that it is trained and judged on, None where none is named.

    Raises: UsageError: there is no such network or data, or they do not fit each other. ModelError: no module.
    """
    (subject,) = subjects_of([model], console, [weights] if weights else [])
    network = subject.network
    if network.module is None or network.source == "pt2":  # a graph of operations, whose layers cannot be replaced
        what = f"{network.name}.{network.source} has no module whose layers could be decomposed"
        raise ModelError(what, try_="a zoo name or file.py:function")
    if not data:
        return subject, None
    from pipeline.datasets import load

    with console.stage(f"reading {data.partition(':')[0]}"):
        dataset = load(data)
    _check_fits(network, dataset)
    return subject, dataset


def _check_fits(network: Network, dataset: Dataset) -> None:
    import torch

    if dataset.input_shape != network.input_shape:
        own, images = ("x".join(map(str, shape[1:])) for shape in (network.input_shape, dataset.input_shape))
        raise UsageError(f"{network.name} takes {own}, the images of {dataset.name} are {images}", try_="other data")
    assert network.module is not None
    with torch.no_grad():
        outputs = network.module(torch.zeros(network.input_shape))
    if (shape := tuple(getattr(outputs, "shape", ()))) != (1, dataset.classes):
        told = "x".join(map(str, shape)) or type(outputs).__name__
        what = f"{network.name} gives {told}, and {dataset.name} has {dataset.classes} classes"
        raise UsageError(what, try_="a network that was trained on the data")


def weights_files(models: Sequence[str], weights: Sequence[str]) -> dict[str, Path]:
    """Model, as it was named -> its weights file. A file may have "=" in its name, and so may a model.

    Raises: UsageError: a file for none of the models, or two for one.
    """
    files: dict[str, Path] = {}
    for text in weights:
        model = max((model for model in models if text.startswith(f"{model}=")), key=len, default="")
        path = text.removeprefix(f"{model}=") if model else text
        if not model and len(models) == 1:
            model = models[0]
        if not model:
            asked = ", ".join(models) or "the default set"
            raise UsageError(
                f"--weights {text} is for none of {asked}", try_="MODEL --weights FILE, or --weights MODEL=FILE"
            )
        if model in files:
            raise UsageError(f"--weights was given twice for {model}", try_="one file for each model")
        files[model] = Path(path)
    return files


def _with_weights(text: str, path: Path, console: Console) -> tuple[Network, dict[str, Any]]:
    from pipeline.spec import resolve_with_weights

    network, placed = resolve_with_weights(text, path)
    told = f"{network.name}: {placed.filled} tensors from {path.name} by the names of {placed.source}"
    if placed.unplaced:
        told += f"; not placed: {', '.join(key[:80] for key in placed.unplaced[:TOLD])}"
        told += f" and {len(placed.unplaced) - TOLD:,} more" if len(placed.unplaced) > TOLD else ""
    console.say(f"{told}; {placed.note}" if placed.note else told)
    document = dataclasses.asdict(placed) | {"unplaced": [key[:200] for key in placed.unplaced[:LISTED]]}
    return network, {"file": path.name, "sha256": sha256_file(path)} | document


def check_formats(subjects: Sequence[Subject], runtimes: Sequence[str]) -> None:
    """Raises: UsageError: a network can run in none of the runtimes."""
    formats = {RUNTIME_FORMATS[runtime] for runtime in runtimes}
    for subject in subjects:
        network = subject.network
        if network.module is None and network.source not in formats:
            fitting = ", ".join(runtime for runtime, form in RUNTIME_FORMATS.items() if form == network.source)
            what = f"{network.name}.{network.source} cannot run in {', '.join(runtimes)}"
            raise UsageError(what, try_=f"--runtime {fitting.partition(',')[0]}")


def fitting(subject: Subject, targets: Sequence[Target]) -> list[Target]:
    """The targets that a network can run in: a file only in its own format's."""
    network = subject.network
    return [target for target in targets if network.module is not None or network.source == target.format]


def _subject(network: Network) -> Subject:
    from pipeline.export.base import first_line
    from pipeline.graph import count_macs

    if network.module is None:
        return Subject(network)
    try:
        return Subject(network, count_macs(network.module, network.input_shape))
    except Exception as error:  # whatever the user's module raises
        shape = "x".join(map(str, network.input_shape))
        raise ModelError(
            f"{network.name} fails on an input of {shape}: {first_line(error)}", try_="another input shape"
        ) from error
