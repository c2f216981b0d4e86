"""A weights file -> its tensors by key, without running anything that it brings."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import printable
from pipeline.errors import ModelError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".pt", ".pth", ".th", ".tar", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"
LIMIT_BYTES = 4 << 30
"""The largest network of the zoo has 575 MB; a checkpoint may hold the optimizer's two copies besides."""

NESTED = ("state_dict", "model_state_dict", "model", "net")
"""Where training scripts put the state_dict in what they save; the first of these that is there."""

WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile and Lightning put before every key."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]{1,120})")
_PLAIN = "torch.save(network.state_dict(), path), or a .safetensors file"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Key -> tensor on the CPU; a wrapper's dict and its prefix are taken off.

    Raises:
        ModelError: no such kind of file, cut short, too large, without tensors, or with something that is no tensor and
            would have to be unpickled.
        StorageError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in (*PICKLES, SAFETENSORS):
        raise ModelError(f"{_name(path)} is no weights file", try_=f"one of {', '.join((*PICKLES, SAFETENSORS))}")
    _check_size(path, archive=suffix != SAFETENSORS)
    found = _safetensors(path) if suffix == SAFETENSORS else _unpickled(path)
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and _is_plain(value)}
    if not tensors:
        raise ModelError(f"{_name(path)} holds no tensors by name", try_=_PLAIN)
    return _unwrapped(tensors)


def _check_size(path: Path, archive: bool) -> None:
    try:
        if not path.is_file():
            raise ModelError(f"there is no weights file {_name(path)}", try_="its path from here")
        size = path.stat().st_size
        if archive and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:  # what torch would inflate
                size = max(size, sum(part.file_size for part in parts.infolist()))
    except OSError as error:
        raise StorageError(f"cannot read {_name(path)}: {error.strerror or error}", try_="a weights file") from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{_name(path)} is a damaged archive: {printable(str(error))[:100]}", try_="the file again"
        ) from error
    if size > LIMIT_BYTES:
        what = f"{_name(path)} holds {size / 2**30:.1f} GiB, more than {LIMIT_BYTES >> 30}"
        raise ModelError(what, try_="a file with the weights alone")


def _unpickled(path: Path) -> Mapping[Any, Any]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parser trips over
        if refused := _GLOBAL.search(str(error)):
            what = f"{_name(path)} holds a pickled {refused[1]}, and unpickling runs code"
            raise ModelError(what, try_=_PLAIN) from error
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])[:120]
        if reason.startswith("Weights only load failed"):  # torch's advice on its own versions follows
            reason = "it is a pickle of something else"
        raise ModelError(f"torch cannot load {_name(path)} as weights: {reason}", try_=_PLAIN) from error
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping):
        raise ModelError(f"{_name(path)} holds a {type(found).__name__}, not a state_dict", try_=_PLAIN)
    return found


def _safetensors(path: Path) -> Mapping[Any, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        reason = printable(str(error))[:120]
        raise ModelError(f"{_name(path)} is no whole .safetensors file: {reason}", try_="the file again") from error


def _is_plain(value: Any) -> bool:
    """A dense tensor with numbers in it. Quantised, sparse and nested ones, and those without storage, are not."""
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not (value.is_quantized or value.is_nested)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((w for w in WRAPPERS if all(key.startswith(w) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def _name(path: Path) -> str:
    return printable(path.name)[:80]
