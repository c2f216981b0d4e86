"""Weights of others give their outputs here: each map is held against the network that it is of, not against shapes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models import MODELS, build
from pipeline.models.mobilenet_v1 import AMC_HALF_FLOPS
from pipeline.weights import Placed, load

OTHERS = runpy.run_path(str(Path(__file__).with_name("others_networks.py")))

# ours, theirs, whose names, side of the image
TORCHVISION = [
    ("densenet121", "densenet121", 64),
    ("mnasnet_b1", "mnasnet1_0", 64),
    ("mobilenet_v2", "mobilenet_v2", 64),
    ("mobilenet_v3_large", "mobilenet_v3_large", 64),
    ("mobilenet_v3_small", "mobilenet_v3_small", 64),
    ("resnet18", "resnet18", 64),
    ("resnet50_v1_5", "resnet50", 64),
    ("shufflenet_v2", "shufflenet_v2_x1_0", 64),
    ("squeezenet_1_0", "squeezenet1_0", 64),
    ("squeezenet_1_1", "squeezenet1_1", 64),
]
TIMM = [
    ("mnasnet_a1", "semnasnet_100", 64),
    ("mnasnet_b1", "mnasnet_100", 64),
    ("mobilenet_v1", "mobilenetv1_100", 64),
    ("mobilenet_v2", "mobilenetv2_100", 64),
    ("mobilenet_v3_large", "mobilenetv3_large_100", 64),
    ("mobilenet_v3_small", "mobilenetv3_small_100", 64),
    ("resnet18", "resnet18", 64),
]


def loaded(
    state: dict[str, Tensor], folder: Path, name: str, module: nn.Module | None = None
) -> tuple[nn.Module, Placed]:
    path = folder / f"{name}.pth"
    torch.save(state, path)
    module = (module or build(name)).eval()
    placed = load(module, name, path)
    assert not module.training and not any(part.training for part in module.modules())
    expected = [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
    assert placed.filled == len(expected) and placed.unplaced == ()
    return module, placed


@torch.no_grad()
def apart(one: Any, other: Any, *shape: int) -> float:
    """The largest difference of two networks' outputs as a share of the largest output."""
    x = torch.randn(shape)
    ours, theirs = one(x), other(x)
    assert theirs.abs().max() > 1e-3 and theirs.std() > 1e-4
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(("ours", "theirs", "side"), TORCHVISION)
def test_torchvision(ours: str, theirs: str, side: int, tmp_path: Path) -> None:
    network = OTHERS["randomised"](getattr(OTHERS["torchvision_models"](), theirs)())
    module, placed = loaded(network.state_dict(), tmp_path, ours)
    assert "torchvision" in placed.source
    assert apart(module, network, 2, 3, side, side) < 1e-4


@pytest.mark.parametrize(("ours", "theirs", "side"), TIMM)
def test_timm(ours: str, theirs: str, side: int, tmp_path: Path) -> None:
    network = OTHERS["randomised"](OTHERS["timm_model"](theirs))
    module, placed = loaded(network.state_dict(), tmp_path, ours)
    assert "timm" in placed.source
    assert apart(module, network, 2, 3, side, side) < 1e-4
    assert ("tf_" in placed.note) == ("v3" in ours)


@pytest.mark.parametrize("name", ["densenet121", "resnet50"])
def test_timm_has_the_names_and_shapes_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        one, other = (
            OTHERS["timm_model"](name).state_dict(),
            getattr(OTHERS["torchvision_models"](), name)().state_dict(),
        )
    assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in other.items()}


@pytest.mark.parametrize("size", ["small", "large"])
def test_minimalistic_networks_differ_by_the_padding_of_tensorflow_and_by_nothing_else(
    size: str, tmp_path: Path
) -> None:
    network = OTHERS["randomised"](OTHERS["timm_model"](f"tf_mobilenetv3_{size}_minimal_100"))
    module, placed = loaded(network.state_dict(), tmp_path, f"mobilenet_v3_{size}_minimalistic")
    assert "as TensorFlow does" in placed.note
    assert apart(module, network, 1, 3, 64, 64) > 1e-3
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.register_forward_pre_hook(lambda _, x: (nn.functional.pad(x[0], (0, 1, 0, 1)),))
            layer.padding = (0, 0)
    assert apart(module, network, 1, 3, 64, 64) < 1e-4


@pytest.mark.parametrize("width", [0.5, 1.5, 2.0])
def test_torchvisions_shufflenet_v2_of_other_widths(width: float, tmp_path: Path) -> None:
    theirs = f"shufflenet_v2_x{width}".replace(".", "_")
    network = OTHERS["randomised"](getattr(OTHERS["torchvision_models"](), theirs)())
    module, placed = loaded(network.state_dict(), tmp_path, "shufflenet_v2", build("shufflenet_v2", width_mult=width))
    assert "half of the channels" in placed.note
    assert apart(module, network, 1, 3, 64, 64) < 1e-4


# Fully connected layers of the whole VGG are half a gigabyte: narrow ones have the same names.
@pytest.mark.parametrize("depth", [11, 16, 19])
@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_vgg(depth: int, source: str, tmp_path: Path) -> None:
    make = {
        "torchvision": lambda: getattr(OTHERS["torchvision_models"](), name)(),
        "timm": lambda: OTHERS["timm_model"](name),
    }
    name = f"vgg{depth}"
    with torch.device("meta"):
        network, module = make[source](), build(name)
        narrow(network), narrow(module)
    network, module = network.to_empty(device="cpu"), module.to_empty(device="cpu")
    module, placed = loaded(OTHERS["randomised"](network).state_dict(), tmp_path, name, module)
    assert placed.source == source
    assert apart(module, network, 1, 3, 224, 224) < 1e-4


def narrow(module: nn.Module) -> None:
    """An eighth of all channels, but for the image's and the classes."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d):
            c_in = 3 if layer.in_channels == 3 else layer.in_channels // 8
            module.set_submodule(
                name, nn.Conv2d(c_in, layer.out_channels // 8, layer.kernel_size, padding=layer.padding)
            )
        elif isinstance(layer, nn.Linear):
            c_out = 1000 if layer.out_features == 1000 else layer.out_features // 8
            module.set_submodule(name, nn.Linear(layer.in_features // 8, c_out))


def test_the_file_of_densenet121_that_torchvision_publishes(tmp_path: Path) -> None:
    network = OTHERS["randomised"](OTHERS["torchvision_models"]().densenet121())
    dotted = {f"{kind}{k}": f"{kind}.{k}" for kind in ("norm", "conv") for k in (1, 2)}
    state = {
        ".".join(dotted.get(part, part) if "denselayer" in key else part for part in key.split(".")): tensor
        for key, tensor in network.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    module, placed = loaded(state, tmp_path, "densenet121")
    assert placed.source == "torchvision's file"
    assert apart(module, network, 1, 3, 64, 64) < 1e-4


def test_paper_resnet50_is_not_torchvisions(tmp_path: Path) -> None:
    from pipeline.errors import ModelError

    torch.save(OTHERS["torchvision_models"]().resnet50().state_dict(), tmp_path / "r.pth")
    with pytest.raises(ModelError, match=r"^r\.pth has .* not of resnet50: .* 3x3.*; try: resnet50_v1_5$"):
        load(build("resnet50"), "resnet50", tmp_path / "r.pth")


@pytest.mark.parametrize(
    ("name", "stages", "groups"),
    [("shufflenet_v1_g3", (240, 480, 960), 3), ("shufflenet_v1_g8", (384, 768, 1536), 8)],
)
def test_shufflenet_v1_of_its_authors(name: str, stages: tuple[int, ...], groups: int, tmp_path: Path) -> None:
    state = OTHERS["megvii_v1"](stages, groups, 1000)
    module, placed = loaded({f"module.{key}": value for key, value in state.items()}, tmp_path, name)
    assert placed.source == "megvii"
    assert apart(module, lambda x: OTHERS["run_megvii_v1"](state, groups, x), 1, 3, 64, 64) < 1e-4


@pytest.mark.parametrize(
    ("width", "stages", "last"),
    [(0.5, (48, 96, 192), 1024), (1.0, (116, 232, 464), 1024), (2.0, (244, 488, 976), 2048)],
)
def test_shufflenet_v2_of_its_authors(width: float, stages: tuple[int, ...], last: int, tmp_path: Path) -> None:
    state = OTHERS["megvii_v2"](stages, last, 1000)
    module, placed = loaded({"state_dict": state}, tmp_path, "shufflenet_v2", build("shufflenet_v2", width_mult=width))
    assert placed.source == "megvii"
    assert apart(module, lambda x: OTHERS["run_megvii_v2"](state, x), 1, 3, 64, 64) < 1e-4


@pytest.mark.parametrize(
    ("source", "layer", "first", "end"),
    [("andreasveit", "block{block}.layer.{at}", 0, ("bn1", "fc")), ("bearpaw", "dense{block}.{at}", 0, ("bn", "fc"))],
)
def test_densenet_100_bc(source: str, layer: str, first: int, end: tuple[str, str], tmp_path: Path) -> None:
    counts = (16, 16, 16)
    state = OTHERS["densenet_bc"](layer, first, end, counts, 12)
    module, placed = loaded(state, tmp_path, "densenet100_bc")
    assert placed.source == source
    assert apart(module, lambda x: OTHERS["run_densenet_bc"](state, layer, first, end, counts, x), 1, 3, 32, 32) < 1e-4


def test_condensenet_of_its_authors(tmp_path: Path) -> None:
    blocks, growths = (14, 14, 14), (8, 16, 32)
    state = OTHERS["condensenet"](blocks, growths, 4)
    module, placed = loaded(state, tmp_path, "condensenet86_cifar10")
    assert placed.source == "its authors"
    assert apart(module, lambda x: OTHERS["run_condensenet"](state, blocks, 4, 1, x), 1, 3, 32, 32) < 1e-4


def test_vgg_of_network_slimming(tmp_path: Path) -> None:
    convs = [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4]
    plan = [step for stage in convs for step in (*stage, "M")][:-1]
    state = OTHERS["slimming_vgg"](plan)
    module, placed = loaded(state, tmp_path, "vgg19_cifar")
    assert placed.source == "network slimming"
    assert apart(module, lambda x: OTHERS["run_slimming_vgg"](state, plan, x), 1, 3, 32, 32) < 1e-4


def test_mobilenet_v1_of_amc(tmp_path: Path) -> None:
    network = OTHERS["randomised"](OTHERS["amc_v1"](AMC_HALF_FLOPS))
    module, placed = loaded(
        network.state_dict(), tmp_path, "mobilenet_v1", build("mobilenet_v1", widths=AMC_HALF_FLOPS)
    )
    assert placed.source == "AMC's authors"
    assert apart(module, network, 1, 3, 64, 64) < 1e-4


def test_resnet_of_cifar_as_it_is_published(tmp_path: Path) -> None:
    """akamaster's files: DataParallel's prefix, inside of a checkpoint."""
    network = OTHERS["randomised"](build("resnet32"))
    parts = {key.rpartition(".")[0] for key in network.state_dict()}
    assert {"conv1", "bn1", "layer1.0.conv1", "layer3.4.bn2", "linear"} <= parts
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    module, placed = loaded({"state_dict": state, "best_prec1": 92.6}, tmp_path, "resnet32")
    assert "akamaster" in placed.source
    assert apart(module, network, 1, 3, 32, 32) == 0


SMALL = [name for name, spec in MODELS.items() if spec.params < 1_000_000]


@pytest.mark.parametrize("name", SMALL)
def test_what_a_network_of_ours_saved(name: str, tmp_path: Path) -> None:
    network = OTHERS["randomised"](build(name))
    module, placed = loaded(network.state_dict(), tmp_path, name)
    assert "handset" in placed.source or placed.source == "its own"
    assert apart(module, network, *MODELS[name].input_shape) == 0
