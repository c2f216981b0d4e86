"""What a MODEL argument means: a zoo name, a model file, a .pt2 program, or file.py:function."""

from __future__ import annotations

import difflib
import errno
import hashlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Network
from pipeline.errors import HandsetError, ModelError, StorageError, UsageError
from pipeline.models import MODELS, build

if TYPE_CHECKING:
    from torch import nn

    from pipeline.weights import Placed

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")
_DEFAULT_SHAPE = (1, 3, 224, 224)
_KINDS = "a zoo name (see `handset models`), a path to .onnx, .tflite or .pt2, or file.py:function"


def resolve(text: str) -> Network:
    """The network that `text` names.

    - `mobilenet_v2`: from the zoo. Trained where the zoo can train it; otherwise weights from seed 0 with running
      statistics settled on photographs and noise, so that outputs have a sane scale. The same on every call.
    - `net.onnx`, `net.tflite`: the file, checked; no torch module.
    - `net.pt2`: torch.export.save's archive; see `pipeline.pt2` for what is refused.
    - `net.py:make`: the file is run, `make()` returns a module, or a module and its input shape ((1, 3, 224, 224)
      if it does not say). This is the user's own code, run as such.

    Raises:
        UsageError: no such name, or a function that does not return a network.
        ModelError: a file that is no model, is cut short, has a dynamic axis, or is a pickle.
        StorageError: the file cannot be read.
    """
    path_text, colon, function = text.rpartition(":")
    if colon and path_text.endswith(".py"):
        return _from_python(Path(path_text), function)
    if text in MODELS:
        return _from_zoo(text)
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix in (".onnx", ".tflite", ".pt2"):
        _require_file(path)
        return _from_pt2(path) if suffix == ".pt2" else _from_model_file(path)
    if suffix in _PICKLES:
        raise ModelError(
            f"{text!r} is a pickle, which runs code when it is read",
            try_="torch.export.save(...) to a .pt2 file, or file.py:function that builds the network",
        )
    if suffix == ".py":
        raise UsageError(f"{text!r} does not say which function makes the network", try_=f"{text}:make_network")
    if text and _exists(path):
        raise ModelError(f"{text!r} is no kind of model file that handset knows", try_=_KINDS)
    near = difflib.get_close_matches(text, MODELS, n=3, cutoff=0.6)
    hint = f"{', '.join(near)}, or `handset models`" if near else _KINDS
    raise UsageError(f"there is no network {text!r}", try_=hint)


def resolve_with_weights(text: str, path: Path) -> tuple[Network, Placed]:
    """The network that `text` names, with the weights of a file: a zoo name, or file.py:function.

    Raises:
        UsageError: no such name, or a model file, which has weights of its own.
        ModelError: the file is none with weights, or they are of another network.
        StorageError: the file cannot be read.
    """
    from pipeline.weights import load

    if text in MODELS:
        network = _network(text, "zoo", MODELS[text].input_shape, build(text).eval())
    elif Path(text).suffix.lower() in (".onnx", ".tflite", ".pt2"):
        raise UsageError(f"{text!r} has weights of its own", try_="--weights with a zoo name or file.py:function")
    else:
        network = resolve(text)
    assert network.module is not None
    placed = load(network.module, network.name, path)
    return _network(network.name, network.source, network.input_shape, network.module), placed


def safe_name(text: str) -> str:
    """A name of [A-Za-z0-9._-], at most 80 long, that starts with a letter or digit.

    A text that had to be changed gets six digits of its hash, so that two different ones stay different.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-")[:64]
    if safe and safe == text:
        return safe
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{safe or 'model'}-{digest}"


def _from_zoo(name: str) -> Network:
    import torch

    from pipeline.datasets import examples
    from pipeline.models.settle import settle

    spec = MODELS[name]
    if spec.trained:
        module_name, _, function = spec.trained.partition(":")
        module: nn.Module = getattr(importlib.import_module(module_name), function)()
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = build(name)
        settle(module, examples(spec.input_shape))
    return _network(name, "zoo", spec.input_shape, module)


def _from_model_file(path: Path) -> Network:
    from pipeline.export.check import check_file

    info = check_file(path)
    return Network(safe_name(path.stem), info.format, info.input_shape, path=path)


def _from_pt2(path: Path) -> Network:
    from pipeline.pt2 import load_program

    try:
        program, shape = load_program(path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", try_="the path of a .pt2 file") from error
    return _network(safe_name(path.stem), "pt2", shape, program.module(check_guards=False))


def _from_python(path: Path, function: str) -> Network:
    import torch

    _require_file(path)
    asked = f"{path.name}:{function}"
    make = getattr(_import(path), function, None)
    if not callable(make):
        raise UsageError(f"{path.name} has no function {function!r}", try_=f"def {function}(): return a torch module")
    try:
        made = make()
    except HandsetError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{asked} raised {_told(error)}", try_="a function without arguments") from error
    module, shape = made if isinstance(made, tuple) and len(made) == 2 else (made, _DEFAULT_SHAPE)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"{asked} returned a {type(module).__name__}", try_="returning a torch module, or (module, input_shape)"
        )
    if not _is_shape(shape):
        raise UsageError(
            f"{asked} returned the input shape {str(shape)[:60]}", try_="whole numbers above 0, batch 1 first"
        )
    return _network(safe_name(function), "python", tuple(shape), module.eval())


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, tuple | list) or not 2 <= len(shape) <= 8:
        return False
    return all(type(size) is int and size > 0 for size in shape) and shape[0] == 1


def _import(path: Path) -> Any:
    """The file as a module under a name of its own, with its folder first on the search path while it is run."""
    name = f"handset_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path.name} cannot be imported", try_="a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses and pickling look their class's module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path.name} cannot be imported: {_told(error)}", try_=f"python {path.name}") from error
    finally:
        sys.path.remove(folder)
    return module


def _require_file(path: Path) -> None:
    if not _exists(path):
        raise ModelError(f"there is no file {str(path)!r}", try_="its path from here")
    if path.is_dir():
        raise ModelError(f"{str(path)!r} is a folder, not a model file", try_=_KINDS)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror}", try_="the path of a model file") from error


def _network(name: str, source: str, shape: tuple[int, ...], module: nn.Module) -> Network:
    params = sum(parameter.numel() for parameter in module.parameters())
    return Network(name, source, shape, module=module, params=params)


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
