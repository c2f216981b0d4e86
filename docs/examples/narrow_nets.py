"""Networks of other widths and resolutions than published, to judge a table by that was built from the published ones:

handset lut validate --lut T docs/examples/narrow_nets.py:mobilenet_v2_075 docs/examples/narrow_nets.py:mnasnet_160
"""

from torch import nn

from pipeline.models import build

Made = tuple[nn.Module, tuple[int, ...]]


def mobilenet_v2_075() -> Made:
    return build("mobilenet_v2", width_mult=0.75), (1, 3, 224, 224)


def mobilenet_v2_160() -> Made:
    return build("mobilenet_v2"), (1, 3, 160, 160)


def mobilenet_v3_075() -> Made:
    return build("mobilenet_v3_small", width_mult=0.75), (1, 3, 224, 224)


def mnasnet_075() -> Made:
    return build("mnasnet_a1", width_mult=0.75), (1, 3, 224, 224)


def mnasnet_160() -> Made:
    return build("mnasnet_a1"), (1, 3, 160, 160)


def shufflenet_v2_192() -> Made:
    return build("shufflenet_v2"), (1, 3, 192, 192)
