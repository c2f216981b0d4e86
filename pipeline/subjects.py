"""What the command line named -> the networks of a run, and what each of them can run in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact import Network
from pipeline.console import Console
from pipeline.default_set import DEFAULT_SET, compressed_digits
from pipeline.deploy import RUNTIME_FORMATS, Target
from pipeline.errors import ModelError, UsageError


@dataclass(frozen=True)
class Subject:
    """One network of a run with what is known of it before it is measured."""

    network: Network
    macs: int | None = None
    compressed_from: str | None = None
    compression: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Any] | None = None


def subjects_of(models: Sequence[str], console: Console) -> list[Subject]:
    """The networks, the default set where none is named; nothing is written yet.

    Raises: UsageError: two have one name. ModelError: there is no such model, or it fails on its input.
    """
    from pipeline.spec import resolve

    subjects: list[Subject] = []
    for text in models or DEFAULT_SET:
        with console.stage(f"preparing {text}"):
            network = resolve(text)
            if any(subject.network.name == network.name for subject in subjects):
                raise UsageError(f"two of the models are called {network.name}", try_="rename one of the files")
            subjects.append(_subject(network))
            if not models and text == "digits_cnn":
                smaller, compression = compressed_digits(network)
                subjects.append(dataclasses.replace(_subject(smaller), compressed_from=text, compression=compression))
    return subjects


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
