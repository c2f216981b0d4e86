"""What plain `make bench` measures: a phone network, a small one, and one before and after compression."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.artifact import Network
from pipeline.compress.tucker import Tucker2

DEFAULT_SET = ("mobilenet_v2", "resnet20", "digits_cnn")

DIGITS_RANKS = {"features.9": (32, 32)}
"""The widest convolution of digits_cnn to a quarter of its channels: 42 % of the network's MACs, no accuracy lost."""


def is_digits(network: Network) -> bool:
    """Whether it is the trained digits network or one made from it: those whose top-1 can be told anywhere."""
    return network.name.startswith("digits_cnn") and network.source in ("zoo", "compressed")


def compressed_digits(network: Network) -> tuple[Network, dict[str, Any]]:
    """digits_cnn with one layer by Tucker-2, and the decision for the report."""
    assert network.module is not None
    compressed = Tucker2(ranks=DIGITS_RANKS).apply(network.module)
    smaller = dataclasses.replace(
        network,
        name=f"{network.name}_tucker2",
        source="compressed",
        module=compressed.model.eval(),
        params=compressed.params_after,
    )
    layers = [dataclasses.asdict(layer) | {"ranks": list(layer.ranks)} for layer in compressed.layers]
    return smaller, {"method": compressed.method, "layers": layers}
