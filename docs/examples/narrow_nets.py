"""Networks of other widths and resolutions than published, to judge a table by that was built from the published ones:

handset lut validate --lut T docs/examples/narrow_nets.py:mobilenet_v2_090 docs/examples/narrow_nets.py:mnasnet_176
"""

from torch import nn

from pipeline.models import build

Made = tuple[nn.Module, tuple[int, ...]]


def mobilenet_v2_090() -> Made:
    return build("mobilenet_v2", width_mult=0.9), (1, 3, 224, 224)


def mobilenet_v2_176() -> Made:
    return build("mobilenet_v2"), (1, 3, 176, 176)


def mobilenet_v3_090() -> Made:
    return build("mobilenet_v3_small", width_mult=0.9), (1, 3, 224, 224)


def mnasnet_090() -> Made:
    return build("mnasnet_a1", width_mult=0.9), (1, 3, 224, 224)


def mnasnet_176() -> Made:
    return build("mnasnet_a1"), (1, 3, 176, 176)


def shufflenet_v2_208() -> Made:
    return build("shufflenet_v2"), (1, 3, 208, 208)
