"""A torch module as a list of ops: every spelling of an op is one op, shapes are torch's, the module stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.fusion.tracing import trace

X = (1, 4, 8, 6)


class Calls(nn.Module):
    """A function of its input; of itself and its input where it has layers."""

    def __init__(self, function: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.function, self.has_layers = function, bool(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x) if self.has_layers else self.function(x)


def ops(function: Callable[..., Any], shape: tuple[int, ...] = X, **layers: Any) -> list[str]:
    return [node.op for node in trace(Calls(function, **layers), shape).nodes]


@pytest.mark.parametrize(
    ("spellings", "op"),
    [
        ([torch.relu, F.relu, torch.Tensor.relu, torch.relu_, lambda x: F.relu(x, inplace=True)], "relu"),
        ([lambda x: x + 1, lambda x: 1 + x, lambda x: x.add(1), lambda x: torch.add(x, 1), lambda x: x.add_(1)], "add"),
        ([lambda x: x * x, lambda x: torch.mul(x, x), lambda x: x.multiply(x)], "mul"),
        ([lambda x: x / 2, lambda x: x.div(2), lambda x: torch.true_divide(x, 2)], "div"),
        ([lambda x: torch.cat([x, x], 1), lambda x: torch.concat([x, x], 1)], "cat"),
        ([lambda x: F.max_pool2d(x, 2), lambda x: torch.max_pool2d(x, 2), nn.MaxPool2d(2).forward], "max_pool2d"),
        ([lambda x: x.transpose(1, 2), lambda x: torch.swapaxes(x, 1, 2)], "transpose"),
        ([lambda x: F.pad(x, (1, 1)), nn.ZeroPad2d((1, 1, 0, 0)).forward], "pad"),
        ([lambda x: torch.ops.aten.relu.default(x), lambda x: torch.ops.aten.relu_.default(x)], "relu"),
    ],
)
def test_every_spelling_is_one_op(spellings: list[Callable[..., Any]], op: str) -> None:
    for spelling in spellings:
        assert ops(spelling) == [op]


def test_what_gives_its_input_on_is_no_op() -> None:
    assert ops(lambda x: F.dropout(x.contiguous().clone(), training=False).detach().to(torch.float32).relu()) == [
        "relu"
    ]
    assert ops(lambda m, x: m.drop(m.same(x)).relu(), drop=nn.Dropout2d(), same=nn.Identity()) == ["relu"]


def test_what_nobody_reads_is_left_out() -> None:
    def forward(x: Tensor) -> Tensor:
        torch.sigmoid(x)
        return torch.tanh(x)

    assert ops(forward) == ["tanh"]


def test_what_is_made_of_weights_alone_is_a_constant() -> None:
    scale = nn.Parameter(torch.rand(4))
    graph = trace(Calls(lambda m, x: x * (m.scale.view(1, -1, 1, 1) * 2 + torch.ones(4, 1, 1)), scale=scale), X)
    (node,) = graph.nodes
    assert node.op == "mul"
    assert (node.inputs[1].constant, node.inputs[1].shape) == (True, (1, 4, 1, 1))


def test_a_number_is_an_operand_and_keeps_its_value() -> None:
    (node,) = trace(Calls(lambda x: 3.0 - x), X).nodes
    assert [value.number for value in node.inputs] == [3.0, None]
    (node,) = trace(Calls(lambda x: F.leaky_relu(x, 0.3)), X).nodes
    assert len(node.inputs) == 1
    assert node.attributes == {"negative_slope": 0.3}


def test_an_op_in_place_changes_what_its_tensor_stands_for() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x + 1
        F.relu(y, inplace=True)
        y += x
        return y

    first, second, third = trace(Calls(forward), X).nodes
    assert [node.op for node in (first, second, third)] == ["add", "relu", "add"]
    assert third.inputs[0] is second.output
    assert second.inputs == [first.output]


def test_an_index_is_a_slice_for_each_axis_that_is_cut() -> None:
    nodes = trace(Calls(lambda x: x[:, 1:3, ::2]), X).nodes
    assert [(node.op, node.attributes, node.output.shape) for node in nodes] == [
        ("slice", {"dim": 1, "begin": 1, "end": 3, "step": 1}, (1, 2, 8, 6)),
        ("slice", {"dim": 2, "begin": 0, "end": 8, "step": 2}, (1, 2, 4, 6)),
    ]
    assert ops(lambda x: x[...]) == []
    assert ops(lambda x: x[:, :, 0, None]) == ["select", "unsqueeze"]
    with pytest.raises(ModelError, match="an index that is a tensor"):
        trace(Calls(lambda x: x[:, torch.tensor([0, 1])]), X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda x: F.avg_pool2d(x, (2, 3), ceil_mode=True),
        lambda x: F.adaptive_avg_pool2d(x, (2, None)),
        lambda x: F.pad(x, (1, 2, 3, 4)),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x[:, ::3, ..., 1:],
        lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: F.linear(x, torch.ones(5, 6)),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3), stride=2),
        lambda x: F.prelu(F.softplus(x), torch.ones(4)),
        lambda x: F.channel_shuffle(F.hardtanh(x), 2).clamp(min=0),
    ],
)
def test_shapes_are_what_torch_computes(function: Callable[..., Any]) -> None:
    assert trace(Calls(function), X).sink.shape == tuple(function(torch.zeros(X)).shape)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(3, 20), st.integers(3, 20)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
)
def test_windows_are_torchs(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int, dilation: int, ceil: bool
) -> None:
    shape = (1, 2, *size)
    windows = [lambda x: F.conv2d(x, torch.ones(3, 2, *kernel), None, stride, padding, dilation)]
    if padding <= min(kernel) // 2:
        windows += [lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil)]
        windows += [lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil)]
    for window in windows:
        try:
            expected = tuple(window(torch.zeros(shape)).shape)
        except RuntimeError:
            with pytest.raises(ModelError):
                trace(Calls(window), shape)
        else:
            assert trace(Calls(window), shape).sink.shape == expected


def test_layers_have_their_names_and_shared_ones_their_weights() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    module = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.Conv2d(4, 4, 1, bias=False))
    first, relu, second, third = trace(module, X).nodes
    assert [node.module for node in (first, relu, second, third)] == ["0.0", "0.1", "0.0", "2"]
    assert first.weight_id == second.weight_id != third.weight_id
    assert [node.weights for node in (first, relu, third)] == [4 * 4 * 9 + 4, 0, 16]
    assert [node.macs for node in (first, relu, third)] == [4 * 48 * 36, None, 4 * 48 * 4]


def test_the_module_is_left_as_it_was_and_runs_as_in_evaluation() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
    module[1].eval()
    before, modes = copy.deepcopy(module.state_dict()), [layer.training for layer in module.modules()]
    assert [node.op for node in trace(module, X).nodes] == ["conv2d", "batch_norm", "relu"]
    assert [layer.training for layer in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module(torch.zeros(2, 4, 8, 6))


def test_a_program_of_torch_export_is_traced_alike() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    exported = torch.export.export(module.eval(), (torch.zeros(X),)).module()
    plain, graph = trace(module, X), trace(exported, X)
    assert [(n.op, n.attributes, n.output.shape) for n in graph.nodes if n.op not in ("view", "flatten")] == [
        (n.op, n.attributes, n.output.shape) for n in plain.nodes if n.op not in ("view", "flatten")
    ]


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x[:, 1:3, ::2],
        lambda x: x[:, :, 2:, -3:-1],
        lambda x: x[..., 1],
        lambda x: x[0, :, -1],
        lambda x: torch.ops.aten.slice.Tensor(x, -1, 1),
        lambda x: torch.ops.aten.slice.Tensor(x),
        lambda x: x.select(-2, 3),
    ],
)
def test_a_program_that_cuts_a_tensor_is_traced_alike(cut: Callable[..., Any]) -> None:
    """Programs have slices and selections of one axis, whose defaults are left out."""

    def told(module: nn.Module) -> list[Any]:
        return [(n.op, n.attributes, n.output.shape) for n in trace(module, X).nodes]

    module = Calls(lambda x: cut(x).relu())
    exported = torch.export.export(module, (torch.zeros(X),)).module()
    kept = [(op, {k: v for k, v in found.items() if k != "dims"}, shape) for op, found, shape in told(exported)]
    assert kept[-1] == told(module)[-1] and kept[-1][2] == tuple(cut(torch.zeros(X)).shape)
    assert [one for one in kept if one[0] == "slice"] == [one for one in told(module) if one[0] == "slice"]


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (nn.Conv2d(3, 4, 1), "a convolution of 3 channels is given"),
        (nn.Linear(7, 4), "a linear layer of 7 features is given"),
        (nn.Conv2d(4, 4, 9), "a window of 9 is larger"),
        (nn.MaxPool2d(7), "a window of 7 is larger"),
        (Calls(lambda x: x.view(5, 5)), "fails on an input of 1x4x8x6 without values"),
        (Calls(lambda x: x if x.sum() > 0 else -x), "without values"),
        (Calls(lambda x: [x]), "gives a list"),
        (Calls(lambda x: torch.zeros(3)), "not one tensor made from its input"),
    ],
)
def test_a_network_that_cannot_be_traced_is_an_error_of_one_line(module: nn.Module, found: str) -> None:
    with pytest.raises(ModelError, match=found) as caught:
        trace(module.train(), X)
    assert "\n" not in str(caught.value)
    assert module.training and not module._forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
