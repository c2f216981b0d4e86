"""What others call the layers of MobileNetV1, V2, V3 and MnasNet.

timm gives its networks of this kind one scheme: conv_stem, blocks.STAGE.BLOCK.{conv_pw, conv_dw, se, conv_pwl}, conv_head.
Its own networks have batch normalisation with epsilon 1e-5, those that it took from TensorFlow (tf_*) 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from pipeline.weights.source import Pairs, Source, conv_bn, own, set_eps

# Convolutions and normalisations of a block of timm's, by the number of ours: without and with an expansion.
TIMM_BLOCK = {
    2: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    3: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


def _timm_blocks(repeats: Iterable[int]) -> Iterator[str]:
    return (f"blocks.{stage}.{i}" for stage, count in enumerate(repeats) for i in range(count))


def _timm_block(parts: Any, ours: str, theirs: str) -> Pairs:
    """`parts`: a Sequential of convolutions with normalisation and, before the last of them, squeeze-and-excitation."""
    excites = [str(i) for i, part in enumerate(parts) if hasattr(part, "down")]
    convs = [str(i) for i in range(len(parts)) if str(i) not in excites]
    for i, (conv, norm) in zip(convs, TIMM_BLOCK[len(convs)], strict=True):
        yield from conv_bn(f"{ours}.{i}", f"{theirs}.{conv}", f"{theirs}.{norm}")
    for i in excites:
        yield f"{ours}.{i}.down", f"{theirs}.se.conv_reduce"
        yield f"{ours}.{i}.up", f"{theirs}.se.conv_expand"


def _v1_timm(module: Any) -> Pairs:
    starts = [i for i, block in enumerate(module.features) if i == 1 or (i and block[0][0].stride == (2, 2))]
    repeats = [b - a for a, b in zip(starts, [*starts[1:], len(module.features)], strict=True)]
    yield from conv_bn("features.0", "conv_stem", "bn1")
    for i, theirs in enumerate(_timm_blocks(repeats), start=1):
        yield from _timm_block(module.features[i], f"features.{i}", theirs)
    yield "classifier", "classifier"


def _v1_amc(module: Any) -> Pairs:
    yield from conv_bn("features.0", "conv1.0", "conv1.1")
    for i in range(1, len(module.features)):
        yield from conv_bn(f"features.{i}.0", f"features.{i - 1}.0", f"features.{i - 1}.1")
        yield from conv_bn(f"features.{i}.1", f"features.{i - 1}.3", f"features.{i - 1}.4")
    yield "classifier", "classifier.1"


def _relu6(module: Any) -> None:
    from torch import nn

    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.ReLU:
                setattr(parent, name, nn.ReLU6())


def _v2_timm(module: Any) -> Pairs:
    from pipeline.models.mobilenet_v2 import TABLE_2

    yield from conv_bn("features.0", "conv_stem", "bn1")
    for i, theirs in enumerate(_timm_blocks(n for _, _, n, _ in TABLE_2), start=1):
        ours = f"features.{i}.conv"
        *first, project = TIMM_BLOCK[len(module.features[i].conv) - 1]
        for k, (conv, norm) in enumerate(first):
            yield from conv_bn(f"{ours}.{k}", f"{theirs}.{conv}", f"{theirs}.{norm}")
        yield f"{ours}.{len(first)}", f"{theirs}.{project[0]}"
        yield f"{ours}.{len(first) + 1}", f"{theirs}.{project[1]}"
    yield from conv_bn(f"features.{len(module.features) - 1}", "conv_head", "bn2")
    yield "classifier.1", "classifier"


def _v3_torchvision(module: Any) -> Pairs:
    for ours, _ in own(module):
        yield ours, ours.replace(".conv.", ".block.").replace(".down", ".fc1").replace(".up", ".fc2")


def _v3_timm(module: Any) -> Pairs:
    from pipeline.models.mobilenet_v3 import VARIANTS

    table = next(table for table, *_ in VARIANTS.values() if len(table) == len(module.features) - 2)
    repeats = [len(list(rows)) for _, rows in groupby(table, key=lambda row: row[2])]  # a stage has one width
    yield from conv_bn("features.0", "conv_stem", "bn1")
    for i, theirs in enumerate(_timm_blocks(repeats), start=1):
        yield from _timm_block(module.features[i].conv, f"features.{i}.conv", theirs)
    last = f"blocks.{len(repeats)}.0"
    yield from conv_bn(f"features.{len(module.features) - 1}", f"{last}.conv", f"{last}.bn1")
    yield "classifier.0", "conv_head"
    yield "classifier.3", "classifier"


def _is_minimalistic(module: Any) -> bool:
    return not any(hasattr(layer, "down") for layer in module.modules())


def _v3_timm_adapt(module: Any) -> None:
    set_eps(1e-3 if _is_minimalistic(module) else 1e-5)(module)


def _v3_timm_note(module: Any) -> str:
    if _is_minimalistic(module):
        return "timm pads at stride 2 on one side, as TensorFlow does, and this network on both: outputs differ"
    return "timm's tf_ files have the same names, and another padding and epsilon: of such a file outputs differ"


def _mnas_stages(module: Any) -> list[int]:
    from pipeline.models.mnasnet import STAGES

    counts = [[n for *_, n, _ in stages] for stages in STAGES.values()]
    return next(repeats for repeats in counts if sum(repeats) == len(module.features) - 3)


def _mnas_timm(module: Any) -> Pairs:
    yield from conv_bn("features.0", "conv_stem", "bn1")
    blocks = _timm_blocks([1, *_mnas_stages(module)])
    yield from _timm_block(module.features[1], "features.1", next(blocks))
    for i, theirs in enumerate(blocks, start=2):
        yield from _timm_block(module.features[i].conv, f"features.{i}.conv", theirs)
    yield from conv_bn(f"features.{len(module.features) - 1}", "conv_head", "bn2")
    yield "classifier.1", "classifier"


def _mnas_torchvision(module: Any) -> Pairs:
    stages = _mnas_stages(module)
    yield from conv_bn("features.0", "layers.0", "layers.1")
    yield from conv_bn("features.1.0", "layers.3", "layers.4")
    yield from conv_bn("features.1.1", "layers.6", "layers.7")
    blocks = (f"layers.{8 + stage}.{i}.layers" for stage, count in enumerate(stages) for i in range(count))
    for i, theirs in enumerate(blocks, start=2):
        for k in range(3):
            yield from conv_bn(f"features.{i}.conv.{k}", f"{theirs}.{3 * k}", f"{theirs}.{3 * k + 1}")
    last = 8 + len(stages)
    yield from conv_bn(f"features.{len(module.features) - 1}", f"layers.{last}", f"layers.{last + 1}")
    yield "classifier.1", "classifier.1"


# timm's MobileNetV1 has ReLU6 for our ReLU. torchvision's MnasNet has timm's epsilon, its MobileNetV3 has ours.
MOBILENET_V1 = (
    Source("handset", own),
    Source("timm", _v1_timm, adapt=_relu6),
    Source("AMC's authors", _v1_amc),
)
MOBILENET_V2 = (Source("handset or torchvision", own), Source("timm", _v2_timm))
MOBILENET_V3 = (
    Source("handset", own),
    Source("torchvision", _v3_torchvision),
    Source("timm", _v3_timm, adapt=_v3_timm_adapt, note=_v3_timm_note),
)
MNASNET = (
    Source("handset", own),
    Source("torchvision", _mnas_torchvision, adapt=set_eps(1e-5)),
    Source("timm", _mnas_timm, adapt=set_eps(1e-5)),
)
