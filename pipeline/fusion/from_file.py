"""What both readers of model files share: a graph of torch's ops, under construction, from a file's.

A file tells less than the module that it was exported from: normalisations are folded, activations are part of other ops, one
layer of torch's is several ops. `as_torch_calls_them` puts these together again, so that whoever looks at a file's graph sees
what he would see of the module, with the names of the file's nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import ModelError
from pipeline.fusion.calls import ARITHMETIC
from pipeline.fusion.ir import Graph, Node, Shape, Value
from pipeline.kernels.file_op import conv_macs

MAX_NODES = 10_000


def check_size(name: str, nodes: int) -> None:
    """Raises: ModelError: the file has more ops than are looked at."""
    if nodes > MAX_NODES:
        what = f"{name} has {nodes:,} ops, and at most {MAX_NODES:,} are looked at"
        raise ModelError(what, try_="a part of the network")


def conv2d(source: Value, sink: Value, weights: Shape, window: dict[str, Any], groups: int, bias: bool) -> Node:
    """Args: weights: (c_out, c_in / groups, k_h, k_w). window: stride, padding (top, left, bottom, right), dilation.

    Raises: ValueError: these do not fit together.
    """
    c_out, c_in = weights[:2]
    whole = min(groups, *weights) > 0 and not c_out % groups
    if not whole or c_in * groups != source.shape[1] or c_out != sink.shape[1]:
        raise ValueError(f"a convolution of {weights} in {groups} groups makes {sink.shape} of {source.shape}")
    attributes = {"kernel": weights[2:], **window, "groups": groups, "out_channels": weights[0], "bias": bias}
    count = math.prod(weights) + (weights[0] if bias else 0)
    macs = conv_macs(sink.shape, source.shape[1], weights[2:], groups)
    return Node("conv2d", [source], [sink], attributes, weights=count, macs=macs)


def linear(source: Value, sink: Value, bias: bool) -> Node:
    c_in, c_out = source.shape[-1], sink.shape[-1]
    attributes = {"out_channels": c_out, "bias": bias}
    macs = math.prod(source.shape) * c_out
    return Node("linear", [source], [sink], attributes, weights=c_in * c_out + (c_out if bias else 0), macs=macs)


def as_torch_calls_them(graph: Graph) -> Graph:
    """The same graph, changed in place: several ops that torch calls as one are one again.

    Raises: ValueError: a tensor without elements, as only damaged files have.
    """
    for node in graph.nodes:
        for value in node.outputs:
            if min(value.shape, default=1) < 1:
                raise ValueError(f"{node.module} gives a tensor of {'x'.join(map(str, value.shape))}")
    for rule in (_pads, _shuffles, _normalisations, _hard_sigmoids, _silus):
        rule(graph)
    for number, node in enumerate(graph.nodes):
        node.weight_id = number if node.weights else 0
    graph.drop_dead()
    return graph


def _pads(graph: Graph) -> None:
    """What is put around an image that one convolution or pool alone reads is its own padding: zeros, for a largest value the
    smallest number."""
    users = graph.users()
    for node in list(graph.nodes):
        after = graph.sole_user(node.output, users) if node.op == "pad" else None
        if after is None or after.op not in ("conv2d", "avg_pool2d", "max_pool2d"):
            continue
        found, own = node.attributes, after.attributes["padding"]
        value = found["value"]
        neutral = value is not None and (value < -3e38 if after.op == "max_pool2d" else not value)
        if found["mode"] != "constant" or not neutral or len(found["pads"]) != 4 or (any(own) and after.op != "conv2d"):
            continue
        (n, c, rows, columns) = found["pads"]
        if n == c == (0, 0):
            around = (rows[0], columns[0], rows[1], columns[1])
            after.attributes["padding"] = tuple(a + b for a, b in zip(own, around, strict=True))
            after.attributes.update({"count_padding": True} if after.op == "avg_pool2d" else {})
            after.inputs = node.inputs
            graph.drop([node])


def _shuffles(graph: Graph) -> None:
    """(n, c, h, w) seen as (n, groups, c / groups, h, w), those two axes exchanged, and back."""

    def shuffle(chain: list[Node]) -> None:
        first, middle, last = chain
        shape, apart = first.inputs[0].shape, first.output.shape
        fits = len(shape) == 4 and last.output.shape == shape and (apart[0], *apart[3:]) == (shape[0], *shape[2:])
        if fits and len(apart) == 5 and middle.attributes["perm"] == (0, 2, 1, 3, 4):
            _as_one(graph, chain, "channel_shuffle", {"groups": apart[1]})

    _chains(graph, ("reshape", "permute", "reshape"), shuffle)


def _normalisations(graph: Graph) -> None:
    """Minus the mean, times two factors, plus the shift: each one number a channel. One that does nothing is left out."""

    def normalise(chain: list[Node]) -> None:
        shape = chain[0].inputs[0].shape
        channels = shape[1] if len(shape) > 1 else 0
        constants = [_constant(node) for node in chain]
        if all(one is not None and _elements(one) == channels for one in constants):
            _as_one(graph, chain, "batch_norm", {}).weights = 4 * channels

    for steps in (("sub", "mul", "mul", "add"), ("sub", "mul", "mul"), ("sub", "mul", "add"), ("sub", "mul")):
        _chains(graph, steps, normalise)


def _hard_sigmoids(graph: Graph) -> None:
    """relu6(x + 3) / 6; the 3 may be in the bias of the convolution before it."""

    def gate(chain: list[Node]) -> None:
        scaled, plus = _constant(chain[-1]), _constant(chain[0])
        times = scaled.number if scaled is not None else None
        sixth = times is not None and math.isclose(times * (1 if chain[-1].op == "div" else 36), 6, rel_tol=1e-4)
        if sixth and (len(chain) == 2 or (plus is not None and plus.number == 3.0)):
            _as_one(graph, chain, "hardsigmoid", {})

    for steps in (("add", "relu6", "mul"), ("add", "relu6", "div"), ("relu6", "mul"), ("relu6", "div")):
        _chains(graph, steps, gate)


def _silus(graph: Graph) -> None:
    users = graph.users()
    for node in list(graph.nodes):
        after = graph.sole_user(node.output, users) if node.op == "sigmoid" else None
        if after is not None and after.op == "mul" and node.inputs[0] in after.inputs:
            after.op, after.inputs = "silu", node.inputs
            graph.drop([node])


def _chains(graph: Graph, ops: Sequence[str], found: Callable[[list[Node]], None]) -> None:
    """Calls `found` with each row of such nodes of which each alone reads the one before."""
    users, gone = graph.users(), set[Node]()
    for node in list(graph.nodes):
        chain: list[Node] = []
        after: Node | None = node
        for op in ops:
            if after is None or after.op != op or after in gone or (chain and chain[-1].output is not after.inputs[0]):
                break
            chain.append(after)
            after = graph.sole_user(after.output, users)
        if len(chain) == len(ops):
            found(chain)
            gone.update(chain[1:])


def _as_one(graph: Graph, chain: Sequence[Node], op: str, attributes: dict[str, Any]) -> Node:
    """The first of a row stands for all; its inputs are the row's first tensor."""
    first, last = chain[0], chain[-1]
    first.op, first.attributes, first.inputs, first.outputs = op, attributes, first.inputs[:1], last.outputs
    graph.drop(chain[1:])
    return first


def _constant(node: Node) -> Value | None:
    """The second operand of arithmetic, where that is known beforehand."""
    second = node.inputs[1] if node.op in ARITHMETIC and len(node.inputs) == 2 else None
    return second if second is not None and second.constant else None


def _elements(value: Value) -> int:
    return math.prod(value.shape)
