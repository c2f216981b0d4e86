"""What the papers report of the same networks: beside our points, never among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Args: delta_top1: percentage points against that paper's own network; removed: shares of parameters and MACs."""

    method: str
    network: str
    delta_top1: float
    params_removed: float | None
    macs_removed: float | None
    reference: str


_ALDS = "Liebenwein et al., NeurIPS 2021, Table 1 (one-shot, CIFAR-10, 182 epochs of retraining)"


def _table1(network: str, *rows: tuple[str, float, float, float]) -> list[Published]:
    return [Published(name, network, delta, params / 100, macs / 100, _ALDS) for name, delta, params, macs in rows]


PUBLISHED: Sequence[Published] = (
    *_table1(
        "resnet20", ("ALDS", -0.47, 74.91, 67.86), ("PCA", -0.11, 49.88, 48.67), ("SVD-Energy", -0.21, 49.88, 49.08),
        ("SVD", -0.29, 39.81, 38.95), ("L-Rank", -0.44, 28.71, 54.89), ("FT", -0.32, 39.69, 39.57),
        ("PFP", -0.28, 40.28, 30.06),
    ),
    *_table1(
        "vgg16_cifar", ("ALDS", -0.11, 95.77, 86.23), ("PCA", -0.02, 89.72, 85.84), ("SVD-Energy", -0.08, 82.57, 81.32),
        ("SVD", 0.29, 70.35, 70.13), ("L-Rank", -0.35, 85.38, 75.86), ("FT", -0.47, 79.13, 78.44),
        ("PFP", -0.47, 94.87, 84.76),
    ),
    Published(
        "ALDS", "resnet18", -0.40, 0.667, 0.4351, "Liebenwein et al., NeurIPS 2021, Table 1 (one-shot, ImageNet)"
    ),
    Published("SVD", "resnet18", -1.75, 0.5038, 0.5037, "Liebenwein et al., NeurIPS 2021, Table 1 (one-shot, ImageNet)"),
    Published("PFP", "resnet18", -0.39, 0.2635, 0.1796, "Liebenwein et al., NeurIPS 2021, Table 1 (one-shot, ImageNet)"),
)  # fmt: skip


def of(network: str) -> list[Published]:
    """Those of a network of the zoo, by its name."""
    return [one for one in PUBLISHED if one.network == network]
