"""What every exporter does: trace once, convert, compare with torch, and only then give the file its name."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.artifact import Exported, Network, sha256_file
from pipeline.errors import HandsetError, ModelError, StorageError, UnsupportedOp, UsageError
from pipeline.export import parity
from pipeline.export.check import FileInfo, check_file
from pipeline.export.quiet import quiet

if TYPE_CHECKING:
    import torch

# What the converters say about an op that they do not have; the group is the op's name.
_MISSING = (
    re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'"),
    re.compile(r"Lowering not found: ([\w.:]+)"),
    re.compile(r"call_function\[target=torch\.ops\.([\w.]+)\]"),
)


class Exporter(ABC):
    """A file format. `export` is the verb; a subclass supplies `convert`.

    Args:
        tolerance: bound on the parity error of the file (see `pipeline.export.parity`).
    """

    format: ClassVar[str]

    def __init__(self, *, tolerance: float = parity.TOLERANCE) -> None:
        self.tolerance = tolerance

    @abstractmethod
    def convert(self, program: torch.export.ExportedProgram, path: Path) -> str:
        """Writes the traced network to `path`; gives the converter and its version. Foreign exceptions may pass."""

    def export(self, network: Network, folder: Path) -> Exported:
        """`<folder>/<name>.<format>`, checked against torch; whole or absent, also after Ctrl-C or on a full disk.

        A network that came as a file of this format is checked and handed on where it lies, without a parity.

        Raises:
            UsageError: the network is a file of another format.
            ModelError: it cannot be run or traced, or gives something else than one tensor.
            UnsupportedOp: the converter does not have an op of it.
            CheckFailed: the file's outputs differ from torch's by more than the tolerance.
            StorageError: the folder cannot be written.
        """
        if network.module is None:
            return self._hand_on(network)
        target = folder / f"{network.name}.{self.format}"
        with storage(target), scratch(target) as path:
            program = trace(network)
            with quiet(), translated(network, self.format):
                converter = self.convert(program, path)
            result = parity.check(network, path, self.tolerance)
            info = check_file(path)
            os.replace(path, target)
            return self._exported(network, target, info, converter, result)

    def _hand_on(self, network: Network) -> Exported:
        path = network.path
        if path is None or network.source != self.format:
            raise UsageError(
                f"{network.name} is a .{network.source} file and cannot become .{self.format}",
                try_="give the torch network (a zoo name, a .pt2 file or file.py:function)",
            )
        return self._exported(network, path, check_file(path), "given by the user", None)

    def _exported(
        self, network: Network, path: Path, info: FileInfo, converter: str, result: parity.Parity | None
    ) -> Exported:
        return Exported(
            network=network.name,
            format=self.format,
            path=path,
            sha256=sha256_file(path),
            bytes=path.stat().st_size,
            input_shape=info.input_shape,
            output_shape=info.output_shape,
            converter=converter,
            parity=result,
        )


def trace(network: Network) -> torch.export.ExportedProgram:
    """The network as torch.export's graph for its input shape, after a first run in plain torch.

    Raises:
        ModelError: it fails on its input, gives something else than one tensor, or depends on the data.
    """
    import torch

    if network.module is None:
        raise UsageError(f"{network.name} has no torch module to trace", try_="a zoo name, .pt2 or file.py:function")
    shape = "x".join(map(str, network.input_shape))
    try:
        with torch.no_grad(), quiet():
            example = torch.zeros(network.input_shape)
            output = network.module(example)
    except Exception as error:
        raise ModelError(
            f"{network.name} fails on an input of {shape}: {first_line(error)}", try_="another input shape"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ModelError(
            f"{network.name} gives a {type(output).__name__}, not one tensor",
            try_="a module around it that returns the tensor to time",
        )
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(network.module, (example,))
    except Exception as error:
        raise ModelError(
            f"torch.export cannot trace {network.name}: {first_line(error)}",
            try_="a forward without branches on the values of tensors",
        ) from error


@contextmanager
def translated(network: Network, format_name: str) -> Iterator[None]:
    """A converter's exception becomes ours: UnsupportedOp with the op's name where it tells one, else ModelError."""
    try:
        yield
    except (HandsetError, OSError):
        raise
    except Exception as error:
        op = missing_op(error)
        if op is not None:
            raise UnsupportedOp(
                f"{network.name} uses {op}, which the .{format_name} converter does not have ({first_line(error)})",
                try_="the other format, or another op in its place",
            ) from error
        raise ModelError(
            f"{network.name} cannot become .{format_name}: {first_line(error)}", try_="the other format"
        ) from error


def missing_op(error: BaseException | None) -> str | None:
    """The op that a converter's exception, or one that caused it, complains of."""
    depth = 0
    while error is not None and depth < 10:
        for pattern in _MISSING:
            if found := pattern.search(str(error)):
                return found.group(1)
        error = error.__cause__ or error.__context__
        depth += 1
    return None


def first_line(error: BaseException) -> str:
    """The innermost cause's first line, without escape sequences, at most 200 characters."""
    while (inner := error.__cause__) is not None:
        error = inner
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"\x1b\[[0-9;]*m", "", lines[0].strip()) if lines else ""
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


@contextmanager
def storage(target: Path) -> Iterator[None]:
    """An OSError inside becomes a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {target}: {reason}", try_="another folder, or free some space") from error


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to first; whatever is left there at the end is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: readers tell the format from it.
    path = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
