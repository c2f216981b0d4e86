"""Inputs that need no network: two photographs, noise from a seed, and the handwritten digits of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
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
