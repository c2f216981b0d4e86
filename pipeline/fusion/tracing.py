"""A torch module -> the list of ops that it calls, with their shapes, without computing anything.

The module runs once on a tensor of torch's device `meta`, which has a shape and no memory. Every call of a torch function
is seen before torch takes it apart (`TorchFunctionMode`), so that a layer is one op and an adaptive pool is none of its
parts; the shapes of what networks are mostly made of are told by `pipeline.fusion.calls`, those of the rest by torch.
That takes some 10 ms for MobileNetV2, where torch.export takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from pipeline.errors import ModelError
from pipeline.fusion.calls import ALIASES, ARITHMETIC, CALLS, CUTS, PASSES, Call
from pipeline.fusion.ir import Graph, Node, Value

_WEIGHTED = ("conv2d", "conv_transpose2d", "linear", "batch_norm", "prelu")


def trace(module: nn.Module, input_shape: Sequence[int]) -> Graph:
    """What an inference calls, in order. The module is left as it was; it is run as in evaluation, whatever its mode.

    Raises: ModelError: it fails on its input, or gives something else than one tensor that depends on it.
    """
    shape = tuple(input_shape)
    source = Value(shape)
    recorder = _Recorder(module)
    try:
        with torch.no_grad(), _evaluating(module), recorder.modules_followed():
            example = recorder.enter(torch.empty(shape, device="meta"), source)
            with recorder:
                output = module(example)
    except ModelError:
        raise
    except Exception as error:  # whatever the user's module raises
        size = "x".join(map(str, shape))
        what = f"{type(module).__name__} fails on an input of {size} without values: {type(error).__name__} {error}"
        raise ModelError(what.splitlines()[0][:300], try_="a forward without branches on values") from error
    sink = recorder.values.get(id(output)) if isinstance(output, Tensor) else None
    if sink is None:
        what = f"{type(module).__name__} gives a {type(output).__name__}, not one tensor made from its input"
        raise ModelError(what, try_="a module around it that returns the tensor to time")
    graph = Graph(recorder.nodes, source, sink)
    graph.drop_dead()
    return graph


class _Recorder(TorchFunctionMode):
    """Sees every call of torch while it is the mode."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.values: dict[int, Value] = {}  # id of a tensor -> what it stands for
        self._alive: list[Tensor] = []  # ids are unique among tensors that live
        self._layers = {id(weight): name.rpartition(".")[0] for name, weight in module.named_parameters()}
        self._names = {id(layer): name for name, layer in module.named_modules()}
        self._path = [""]

    def enter(self, tensor: Tensor, value: Value) -> Tensor:
        self.values[id(tensor)] = value
        self._alive.append(tensor)
        return tensor

    @contextmanager
    def modules_followed(self) -> Iterator[None]:
        """Keeps `_path` at the layer that runs."""
        hooks = torch.nn.modules.module
        before = hooks.register_module_forward_pre_hook(
            lambda layer, args: self._path.append(self._names.get(id(layer), self._path[-1]))
        )
        after = hooks.register_module_forward_hook(lambda layer, args, output: self._leave(), always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _leave(self) -> None:
        if len(self._path) > 1:
            self._path.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(id(tensor) in self.values for tensor in _tensors((*args, *kwargs.values()))):
            return func(*args, **kwargs)  # of weights alone: a constant, or no tensor at all
        name, in_place = _name_of(func, kwargs)
        call = CALLS.get(name, Call(()))
        source = next((tensor for tensor in _tensors((*args, *kwargs.values()))), None)
        bound = call.bind(args, kwargs)
        shape = tuple(source.shape) if source is not None else ()
        attributes = call.attributes(bound, shape) if call.parameters else {}
        if call.shape is not None and source is not None:
            result: Any = torch.empty(call.shape(attributes, shape), device="meta", dtype=source.dtype)
        else:
            meta = tree_map(lambda one: one.to("meta") if isinstance(one, Tensor) else one, (args, kwargs))
            result = func(*meta[0], **meta[1])
        outputs = [result] if isinstance(result, Tensor) else list(result) if _is_tensors(result) else []
        if not outputs:
            return result
        if name in PASSES:
            return self.enter(result, self.values[id(args[0])])
        if name in CUTS:
            return self._index(bound["input"], CUTS[name](bound, len(shape)), result)
        self._record(name, attributes, bound, outputs, (args, kwargs))
        if in_place:  # the tensor that was given stands for the result from here on
            self.values[id(args[0])] = self.values[id(outputs[0])]
            return args[0]
        return result

    def _record(self, name: str, attributes: dict[str, Any], bound: Any, outputs: list[Tensor], given: Any) -> None:
        weights = _weights_of(name, bound)
        hidden = {id(weight) for weight in weights}
        inputs = [self._value(one) for one in _operands(name, given) if id(one) not in hidden]
        if name in _WEIGHTED:
            inputs = [value for value in inputs if not value.constant]
        values = [Value(tuple(one.shape), str(one.dtype).removeprefix("torch.")) for one in outputs]
        for tensor, value in zip(outputs, values, strict=True):
            self.enter(tensor, value)
        first = next((weight for weight in weights if id(weight) in self._layers), None)
        node = Node(name, inputs, values, attributes, self._layers.get(id(first), self._path[-1]))
        node.weights = sum(weight.numel() for weight in weights)
        node.weight_id = id(weights[0]) if weights else 0
        if name in ("conv2d", "linear"):
            node.macs = math.prod(values[0].shape) * (weights[0].numel() // weights[0].shape[0])
        self.nodes.append(node)

    def _value(self, operand: Any) -> Value:
        if isinstance(operand, Tensor):
            known = self.values.get(id(operand))
            if known is not None:
                return known
            number = float(operand) if operand.numel() == 1 and not operand.is_meta else None
            return Value(tuple(operand.shape), str(operand.dtype).removeprefix("torch."), True, number)
        return Value((), "float32", True, float(operand))

    def _index(self, source: Tensor, index: Any, result: Tensor) -> Tensor:
        """x[...] as torch.export writes it: a slice for each axis that is cut, then the axes that are put in or taken."""
        value = self.values[id(source)]
        places: list[Any] = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in places:
            at = places.index(Ellipsis)
            used = sum(one is not None for one in places) - 1
            places[at : at + 1] = [slice(None)] * (len(value.shape) - used)
        axis = 0
        added: list[int] = []
        taken: list[int] = []
        for place in places:
            if place is None:
                added.append(axis + len(added) - len(taken))
                continue
            if isinstance(place, slice):
                begin, end, step = place.indices(value.shape[axis])
                size = len(range(begin, end, step))
                if size != value.shape[axis]:
                    cut = Value((*value.shape[:axis], size, *value.shape[axis + 1 :]), value.dtype)
                    attributes = {"dim": axis, "begin": begin, "end": end, "step": step}
                    self.nodes.append(Node("slice", [value], [cut], attributes, self._path[-1]))
                    value = cut
            elif isinstance(place, int):
                taken.append(axis)
            else:
                raise ModelError("an index that is a tensor is not followed", try_="slices and whole numbers")
            axis += 1
        if taken:
            value = self._reshaped("select", value, tuple(s for i, s in enumerate(value.shape) if i not in taken))
            self.nodes[-1].attributes["dims"] = tuple(taken)
        if added:
            value = self._reshaped("unsqueeze", value, tuple(result.shape))
        self.enter(result, value)
        return result

    def _reshaped(self, name: str, value: Value, shape: tuple[int, ...]) -> Value:
        new = Value(shape, value.dtype)
        self.nodes.append(Node(name, [value], [new], {}, self._path[-1]))
        return new


def _name_of(func: Any, kwargs: dict[str, Any]) -> tuple[str, bool]:
    """torch's name of an op, and whether its first argument becomes the result."""
    full = str(getattr(func, "__name__", func)).partition(".")[0]
    bare = full.strip("_")
    in_place = (full.endswith("_") and not full.endswith("__")) or (full.startswith("__i") and bare[1:] in CALLS)
    bare = ALIASES.get(bare, bare)
    return bare, in_place or kwargs.get("inplace") is True


def _tensors(operands: Sequence[Any]) -> Iterator[Tensor]:
    for one in operands:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, list | tuple):
            yield from (item for item in one if isinstance(item, Tensor))


def _operands(name: str, given: Any) -> list[Any]:
    """The tensors among the arguments; a number beside a tensor is an operand of an arithmetic op too."""
    args, kwargs = given
    if name in ARITHMETIC and len(args) >= 2:
        return [args[1], args[0]] if name == "rsub" else list(args[:2])
    return list(_tensors((*args, *kwargs.values())))


def _weights_of(name: str, bound: dict[str, Any]) -> list[Tensor]:
    if name not in _WEIGHTED:
        return []
    if name in ("batch_norm", "prelu"):
        return [one for key, one in (*bound.items(), *enumerate(bound["rest"])) if key != "input" and isinstance(one, Tensor)]
    return [one for one in (bound.get("weight"), bound.get("bias")) if isinstance(one, Tensor)]


def _is_tensors(result: Any) -> bool:
    return isinstance(result, list | tuple) and len(result) > 0 and all(isinstance(one, Tensor) for one in result)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [layer for layer in module.modules() if layer.training]
    for layer in training:
        layer.training = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True
