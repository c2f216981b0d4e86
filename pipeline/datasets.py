"""Inputs that need no network: two photographs, noise from a seed, the handwritten digits of scikit-learn; and what
networks are trained and judged on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

# The ImageNet statistics that published networks are trained with: RGB in [0, 1].
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
NOISE_SEEDS = (0, 1, 2)
DIGITS_TEST = 360


def photographs(shape: Sequence[int]) -> dict[str, Array]:
    """scikit-learn's two photographs, "china" and "flower", as input of a network.

    Args:
        shape: (1, channels, height, width). Three channels are RGB; any other number repeats the grey picture.

    Returns:
        name -> float32 array of that shape: the whole picture resized, standardised with MEAN and STD.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    _, channels, height, width = shape
    sample = load_sample_images()
    pictures = {}
    for path, pixels in zip(sample.filenames, sample.images, strict=True):
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        rgb = (np.asarray(resized, np.float32) / 255 - MEAN) / STD
        planes = rgb.transpose(2, 0, 1)
        if channels != 3:
            planes = np.repeat(planes.mean(0, keepdims=True), channels, axis=0)
        name = path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".jpg")
        pictures[name] = np.ascontiguousarray(planes[None], np.float32)
    return pictures


def noise(shape: Sequence[int], seed: int) -> Array:
    """Standard normal float32 noise; the same for the same seed on every machine."""
    return np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32)


def examples(shape: Sequence[int]) -> dict[str, Array]:
    """What a network is tried on: both photographs (where the shape is that of an image) and three noises, by name."""
    images = photographs(shape) if len(shape) == 4 else {}
    return images | {f"seed{seed}": noise(shape, seed) for seed in NOISE_SEEDS}


def digits() -> tuple[Array, Labels, Array, Labels]:
    """scikit-learn's 8x8 digits, split once and for all: 1437 to train, 360 to test, every class in proportion.

    Returns:
        train_x, train_y, test_x, test_y: images (n, 1, 8, 8) in [0, 1], labels 0-9.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = np.asarray(bunch.images[:, None] / 16, np.float32)
    y = np.asarray(bunch.target, np.int64)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=DIGITS_TEST, stratify=y, random_state=0)
    return train_x, train_y, test_x, test_y


@dataclass(frozen=True)
class Dataset:
    """Labelled images, split into those to train on and those to judge by.

    Args:
        train_x, test_x: (n, channels, height, width): uint8, which `mean` and `std` standardise after a division by 255; or
            float32, ready as it is.
        train_y, test_y: (n,), 0 ... classes - 1.
        mean, std: a number a channel, for uint8.
        crop: pixels of black border from which training takes a window of the images' size anywhere.
        flip: whether training mirrors every second image.
    """

    name: str
    train_x: Pixels | Array
    train_y: Labels
    test_x: Pixels | Array
    test_y: Labels
    classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: int = 0
    flip: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        _, channels, height, width = self.train_x.shape
        return (1, channels, height, width)

    def held_out(self, share: float = 0.1, seed: int = 0) -> Dataset:
        """To search on: `share` of the training images, class by class, are the test split; the own one is not in it.

        Raises: UsageError: a share that leaves one of the two splits without an image of some class.
        """
        order = np.random.default_rng(seed).permutation(len(self.train_y))
        taken = np.zeros(len(order), bool)
        for label in range(self.classes):
            own = order[self.train_y[order] == label]
            count = round(share * len(own))
            if not 0 < count < len(own):
                what = f"{share:g} of the {len(own)} training images of class {label} of {self.name}"
                raise UsageError(f"cannot hold out {what}", try_="a share that leaves some on both sides")
            taken[own[:count]] = True
        return dataclasses.replace(
            self, train_x=self.train_x[~taken], train_y=self.train_y[~taken], test_x=self.train_x[taken],
            test_y=self.train_y[taken],
        )  # fmt: skip


def load(text: str) -> Dataset:
    """What `--data` names: "digits", or "cifar10:FOLDER".

    Raises: UsageError: there is no such data. ModelError: files that hold something else. StorageError: none to be read.
    """
    from pipeline import cifar10

    kind, _, path = text.partition(":")
    if text == "digits":
        return Dataset("digits", *digits(), classes=10)
    if kind == "cifar10" and path:
        folder = Path(path)
        if not (folder / "train.parquet").exists() and (folder / "cifar10").is_dir():
            folder = folder / "cifar10"
        splits: list[Any] = [cifar10.read_split(folder / f"{split}.parquet") for split in ("train", "test")]
        (train_x, train_y), (test_x, test_y) = splits
        mean, std = (tuple(float(value) for value in one) for one in (MEAN, STD))
        return Dataset("cifar10", train_x, train_y, test_x, test_y, cifar10.CLASSES, mean, std, crop=4, flip=True)
    raise UsageError(f"there is no data {text!r}", try_="digits, or cifar10:FOLDER with train.parquet and test.parquet")
