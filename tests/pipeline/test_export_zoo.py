"""Every network of the zoo becomes a file of every format that computes what torch computes.

Each is tried in a reduced form: its family's own table with no block repeated more than twice, narrow, at a small image. What
the converters see is the same but for the numbers; full-size, an export to TFLite alone takes some ten seconds. Networks whose
reduced forms are equal (the depths of a ResNet) share one export.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.artifact import Exported, Network
from pipeline.datasets import examples
from pipeline.export import EXPORTERS
from pipeline.export.parity import TOLERANCE
from pipeline.graph import count
from pipeline.kernels.tflite import keys
from pipeline.models import MODELS, build
from pipeline.models.settle import settle
from pipeline.tflite_file import read


def _few(repeats: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(count, 2) for count in repeats)


def _variants(table: Any) -> Any:
    return {name: dataclasses.replace(one, blocks=_few(one.blocks)) for name, one in table.items()}


SHORTER = {
    "condensenet": ("VARIANTS", _variants),
    "densenet": ("VARIANTS", _variants),
    "mnasnet": ("STAGES", lambda table: {
        name: tuple((*stage[:4], min(stage[4], 2), stage[5]) for stage in stages) for name, stages in table.items()
    }),
    "resnet": ("TABLE_1", lambda table: {depth: _few(repeats) for depth, repeats in table.items()}),
    "shufflenet_v1": ("REPEATS", _few),
    "shufflenet_v2": ("REPEATS", _few),
    "squeezenext": ("VERSIONS", lambda table: {name: (k, _few(n), *rest) for name, (k, n, *rest) in table.items()}),
    "vgg": ("TABLE_1", lambda table: {depth: _few(repeats) for depth, repeats in table.items()}),
}  # fmt: skip
"""Family -> its table, and the same with no block repeated more than twice. The others are short, or their length is fixed."""
WIDTH = 0.25
SETTINGS: dict[str, dict[str, Any]] = {
    "resnet_cifar": {"depth": 14}, "squeezenext": {"width_mult": 0.5}, "vgg": {"width_mult": 0.0625},
}  # fmt: skip
"""Family -> settings of its reduced form, beside a width of WIDTH."""
SIDES = {"squeezenext": 67, "vgg": 224}
"""Family -> height and width of the image: 64 for other networks of 224. A VGG's linear layers read no other."""
AMPLIFIES = {"squeezenext"}
"""Families whose untrained weights amplify rounding: torch itself, in float32, is further from float64 than the tolerance."""
NOT_EXPORTED: dict[tuple[str, str], str] = {}
"""(network, format) -> what the refusal says. Empty: all of them become both."""


def family_of(name: str) -> str:
    return MODELS[name].builder.partition(":")[0].rpartition(".")[2]


@contextlib.contextmanager
def shortened(family: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if family in SHORTER:
            table, shorter = SHORTER[family]
            module = importlib.import_module(f"pipeline.models.{family}")
            patch.setattr(module, table, shorter(getattr(module, table)))
        yield


def module_of(name: str) -> nn.Module:
    family = family_of(name)
    with torch.random.fork_rng(devices=[]), shortened(family):
        torch.manual_seed(0)
        return build(name, num_classes=10, **{"width_mult": WIDTH, **SETTINGS.get(family, {})})


def reduced(name: str) -> Network:
    module, shape = module_of(name), MODELS[name].input_shape
    if shape[2] > 32:
        shape = (1, 3, *[SIDES.get(family_of(name), 64)] * 2)
    settle(module, examples(shape))
    return Network(name, "zoo", shape, module=module)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(network, format) -> its Exported; what is equal but for the name is made once."""
    folder, made = tmp_path_factory.mktemp("zoo"), dict[tuple[str, str], Exported]()

    def export(name: str, format_name: str) -> Exported:
        network = reduced(name)
        key = f"{network.module} {network.input_shape}", format_name
        if key not in made:
            made[key] = EXPORTERS[format_name]().export(network, folder)
        return made[key]

    return export


@pytest.mark.parametrize("format_name", EXPORTERS)
@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_torch(name: str, format_name: str, exports: Any) -> None:
    if (name, format_name) in NOT_EXPORTED:
        with pytest.raises(Exception, match=NOT_EXPORTED[name, format_name]):
            exports(name, format_name)
        return
    parity = exports(name, format_name).parity
    assert parity is not None and len(parity.errors) == 5
    assert parity.worst_error <= parity.tolerance
    assert parity.tolerance == TOLERANCE or (family_of(name) in AMPLIFIES and parity.tolerance < 1e-3)


@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_groups_stay_groups_and_shuffles_become_no_convolutions_in_tflite(groups: int, exports: Any) -> None:
    """Split into one convolution a group, or multiplied by a permutation, they would agree with torch as well."""
    name = f"shufflenet_v1_g{groups}"
    found = keys(exports(name, "tflite").path)
    kernels = [op.key for op in found if op.key is not None]
    units = 6
    grouped = [key for key in kernels if key.op == "conv2d" and key.groups == groups]
    assert len(grouped) == 2 * units - 1  # the first 1x1 of all is not grouped
    shuffles = [key for key in kernels if key.op == "transpose" and key.detail == "perm=0,2,1,3,4"]
    assert len(shuffles) == units and {key.input_shape[1] for key in shuffles} == {groups}
    network = reduced(name)
    assert network.module is not None
    assert sum(op.macs or 0 for op in found) == count(network.module, network.input_shape).macs


def test_shuffle_of_halves_in_tflite(exports: Any) -> None:
    ops = [operator.op for operator in read(exports("shufflenet_v2", "tflite").path).operators]
    assert ops.count("CONCATENATION") == 6 and "SPLIT" not in ops and "GATHER_ND" not in ops


def test_an_index_layer_is_a_gather_in_both(exports: Any) -> None:
    import onnx

    layers = sum(_few((8, 8, 8))) + 1  # the classifier has one too
    ops = [operator.op for operator in read(exports("condensenet50_cifar10", "tflite").path).operators]
    nodes = [node.op_type for node in onnx.load(exports("condensenet50_cifar10", "onnx").path).graph.node]
    assert ops.count("GATHER_ND") == nodes.count("Gather") == layers


def kinds(module: nn.Module) -> set[tuple[object, ...]]:
    found: set[tuple[object, ...]] = set()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            groups = "depthwise" if layer.groups == layer.in_channels > 1 else layer.groups
            found.add(("Conv2d", layer.kernel_size, layer.stride, groups, layer.bias is not None))
        else:
            found.add((type(layer).__name__,))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_reduced_form_has_all_kinds_of_layers_that_the_network_has(name: str) -> None:
    with torch.device("meta"):
        whole = build(name)
    assert kinds(module_of(name)) == kinds(whole)
