"""Labelled images: CIFAR-10's files read and refused, splits that do not meet, names that mean nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from pipeline import cifar10
from pipeline.datasets import load
from pipeline.errors import HandsetError, ModelError, StorageError, UsageError


def picture(seed: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def write(path: Path, images: Sequence[Any], labels: Sequence[Any], **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame({"image": images, "label": labels, **columns}).to_parquet(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, first in (("train", 0), ("test", 100)):
        labels = [number % 10 for number in range(40)]
        write(tmp_path / "cifar10" / f"{split}.parquet", [picture(first + n) for n in range(40)], labels)
    return tmp_path


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_cifar10_is_read_as_it_is_from_its_folder_or_the_one_above(folder: Path, below: str) -> None:
    dataset = load(f"cifar10:{folder / below}")
    assert dataset.input_shape == (1, 3, 32, 32) and (dataset.classes, dataset.crop, dataset.flip) == (10, 4, True)
    assert dataset.train_x.dtype == np.uint8 and len(dataset.train_x) == len(dataset.test_x) == 40
    expected = np.asarray(Image.open(io.BytesIO(picture(107)))).transpose(2, 0, 1)
    assert np.array_equal(dataset.test_x[7], expected) and dataset.test_y.tolist()[7] == 7


def test_pictures_as_hugging_face_stores_them_and_grey_ones_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [{"bytes": picture(1, mode="L"), "path": None}], [3])
    images, labels = cifar10.read_split(path)
    assert images.shape == (1, 3, 32, 32) and np.array_equal(images[0, 0], images[0, 2]) and labels.tolist() == [3]


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        ([picture(0), picture(1, (33, 32))], [0, 1], r"a picture of 33x32 in row 1; try: 32x32 pixels"),
        ([b"no picture"], [0], "a picture that cannot be decoded in row 0"),
        ([picture(0)[:200]], [0], "a picture that cannot be decoded in row 0"),
        ([b"x" * (cifar10.MAX_IMAGE_BYTES + 1)], [0], "no picture in row 0"),
        ([None, picture(0)], [0, 0], "no picture in row 0"),
        ([picture(0)], [10], "the label 10 in row 0; try: labels 0-9"),
        ([picture(0)], [0.5], "the label 0.5 in row 0"),
        ([], [], "0 rows"),
    ],
)
def test_files_of_something_else_are_refused_in_one_line(
    tmp_path: Path, images: Sequence[Any], labels: Sequence[Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint) as raised:
        cifar10.read_split(write(tmp_path / "x.parquet", images, labels))
    assert "\n" not in str(raised.value)


def test_a_file_without_the_columns_or_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pandas.DataFrame({"img": [1]}).to_parquet(path)
    with pytest.raises(ModelError, match="is not CIFAR-10: the columns img; try: columns image and label"):
        cifar10.read_split(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelError, match="is not CIFAR-10"):
        cifar10.read_split(path)
    with pytest.raises(StorageError, match="cannot read .*none.parquet.*; try: --data cifar10:FOLDER"):
        cifar10.read_split(tmp_path / "none.parquet")


@pytest.mark.parametrize("text", ["", "cifar10", "cifar10:", "mnist", "digits:x"])
def test_an_unknown_name_says_which_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="there is no data .*; try: digits, or cifar10:FOLDER"):
        load(text)


def test_a_held_out_split_is_taken_from_training_class_by_class() -> None:
    whole = load("digits")
    split = whole.held_out(0.2, seed=3)
    assert len(split.train_y) + len(split.test_y) == len(whole.train_y)
    counts = np.bincount(whole.train_y)
    assert np.array_equal(np.bincount(split.test_y), [round(0.2 * count) for count in counts])
    images = {image.tobytes() for image in split.train_x} | {image.tobytes() for image in split.test_x}
    assert images == {image.tobytes() for image in whole.train_x}
    again, other = whole.held_out(0.2, seed=3), whole.held_out(0.2, seed=4)
    assert np.array_equal(again.test_x, split.test_x) and not np.array_equal(other.test_x, split.test_x)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(HandsetError, match=r"cannot hold out .* of the .* training images of class 0"):
        load("digits").held_out(share)
