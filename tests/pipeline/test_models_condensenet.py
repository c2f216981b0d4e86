"""CondenseNet while it learns its groups, and the network that it is converted into."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.models import build
from pipeline.models.condensenet import CondensedConv, CondensedLinear, CondenseNet, LearnedGroupConv

MADE = runpy.run_path(str(Path(__file__).with_name("test_models_classic.py")))
on_paper, forward, normalised = MADE["on_paper"], MADE["forward"], MADE["normalised"]


def learned(**settings: Any) -> CondenseNet:
    torch.manual_seed(0)
    module = normalised(build("condensenet50_cifar10", learned=True, **settings))
    assert isinstance(module, CondenseNet)
    return module


def layers_of(module: nn.Module) -> list[LearnedGroupConv]:
    return [layer for layer in module.modules() if isinstance(layer, LearnedGroupConv)]


@pytest.mark.parametrize(
    ("progress", "kept"), [(0.0, 1.0), (0.16, 1.0), (0.17, 0.75), (0.34, 0.5), (0.5, 0.25), (1.0, 0.25)]
)
def test_condensing_takes_a_quarter_a_stage_in_the_first_half_of_training(progress: float, kept: float) -> None:
    module = learned()
    module.set_progress(progress)
    assert {layer.mask.mean().item() for layer in layers_of(module)} == {kept}


def test_a_group_loses_its_least_important_inputs_whole() -> None:
    layer = LearnedGroupConv(8, 6, groups=2, condensation=4)
    nn.init.constant_(layer.conv.weight, 1.0)
    with torch.no_grad():
        layer.conv.weight[0::2, [1, 5]] = 0.1  # outputs 0, 2, 4 are the first group
        layer.conv.weight[1::2, [0, 7]] = -0.1
    layer.condense_to(1)
    assert (layer.mask[0::2, :, 0, 0] == 0).nonzero()[:, 1].tolist() == [1, 5] * 3
    assert (layer.mask[1::2, :, 0, 0] == 0).nonzero()[:, 1].tolist() == [0, 7] * 3


def test_what_is_lost_stays_lost_and_stages_reached_at_once_are_all_gone_through() -> None:
    slowly, at_once = learned(), learned()
    before = torch.ones(())
    for progress in (0.2, 0.4, 0.5):
        slowly.set_progress(progress)
        assert not (layers_of(slowly)[5].mask * (1 - before)).any()
        before = layers_of(slowly)[5].mask.clone()
    slowly.set_progress(0.1)
    at_once.set_progress(0.5)
    for one, other in zip(layers_of(slowly), layers_of(at_once), strict=True):
        assert torch.equal(one.mask, other.mask)


def test_gradients_do_not_reach_what_is_masked() -> None:
    layer = LearnedGroupConv(8, 8, groups=4, condensation=4)
    layer.condense_to(3)
    layer(torch.rand(2, 8, 3, 3)).sum().backward()
    assert layer.conv.weight.grad is not None
    assert torch.equal(layer.conv.weight.grad != 0, layer.mask != 0)


def test_group_lasso_is_the_norm_of_each_group_and_input_until_the_last_stage() -> None:
    layer = LearnedGroupConv(4, 4, groups=2, condensation=2)
    with torch.no_grad():
        layer.conv.weight[:] = torch.tensor([3.0, 5.0, 4.0, 12.0]).view(4, 1, 1, 1)  # groups of (3, 4) and of (5, 12)
    assert layer.group_lasso().item() == pytest.approx(4 * (5 + 13))
    layer.condense_to(1)
    assert layer.group_lasso().item() == 0


@pytest.mark.parametrize("groups", [4, 8])
def test_a_converted_network_computes_the_same(groups: int) -> None:
    module = learned(groups=groups, **({"widths": [16, *[32, 8] * 24]} if groups == 8 else {}))
    module.set_progress(0.5)
    features = module.classifier.in_features
    assert isinstance(features, int)
    used = torch.randperm(features)[: features // 2]
    with torch.no_grad():  # the half that the classifier reads, so that nothing is lost
        weight = torch.zeros_like(module.classifier.weight)  # type: ignore[arg-type]
        weight[:, used] = torch.randn(10, len(used))
        module.classifier.weight.copy_(weight)  # type: ignore[operator, union-attr]
    converted = module.convert()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(forward(module, x), forward(converted, x), atol=1e-4)
    assert not layers_of(converted) and isinstance(converted.classifier, CondensedLinear)
    assert converted.classifier.index.tolist() == sorted(used.tolist())


def test_a_converted_network_has_the_shapes_of_the_listed_one_and_the_learned_one_is_left() -> None:
    module = learned()
    module.set_progress(0.5)
    converted = {key: value.shape for key, value in module.convert().state_dict().items()}
    assert converted == {key: value.shape for key, value in on_paper("condensenet50_cifar10").state_dict().items()}
    assert len(layers_of(module)) == 24


def test_converting_too_early_or_twice_is_refused() -> None:
    module = learned()
    module.set_progress(0.4)
    with pytest.raises(UsageError, match=r"after 2 of 3 condensing stages; try: set_progress\(0.5\)"):
        module.convert()
    with pytest.raises(UsageError, match="converted already"):
        on_paper("condensenet50_cifar10").convert()


def test_every_input_is_read_where_nothing_was_learned() -> None:
    for layer in build("condensenet50_cifar10").modules():
        if isinstance(layer, CondensedConv):
            assert sorted(layer.index.tolist()) == list(range(len(layer.index)))
