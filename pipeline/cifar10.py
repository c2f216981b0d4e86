"""CIFAR-10 from a folder with train.parquet and test.parquet: columns `image` (PNG or JPEG bytes, 32x32 RGB) and `label`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError, StorageError

if TYPE_CHECKING:
    from pipeline.datasets import Labels, Pixels

SIDE, CLASSES = 32, 10
MAX_IMAGES = 1_000_000
MAX_IMAGE_BYTES = 1 << 20
"""An encoded picture of 32x32 has some 1 or 2 kB."""


def read_split(path: Path) -> tuple[Pixels, Labels]:
    """Images (n, 3, 32, 32) as uint8 and labels (n,) of one file.

    Raises:
        ModelError: the file is no Parquet, has other columns, too many rows, a picture that is none or of another size, or a
            label outside 0-9.
        StorageError: it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        rows = file.metadata.num_rows
        if not 0 < rows <= MAX_IMAGES:
            raise _wrong(path, f"{rows:,} rows", f"1 ... {MAX_IMAGES:,} images")
        names = file.schema_arrow.names
        if not {"image", "label"} <= set(names):
            raise _wrong(path, f"the columns {', '.join(names)[:200]}", "columns image and label")
        images, labels = np.empty((rows, 3, SIDE, SIDE), np.uint8), np.empty(rows, np.int64)
        row = 0
        for batch in file.iter_batches(1024, columns=["image", "label"]):
            for encoded, label in zip(batch["image"].to_pylist(), batch["label"].to_pylist(), strict=True):
                images[row], labels[row] = _picture(path, row, encoded), _label(path, row, label)
                row += 1
    except OSError as error:
        what = f"cannot read {path}: {error.strerror or error}"
        raise StorageError(what, try_="--data cifar10:FOLDER with train.parquet and test.parquet") from error
    except pyarrow.ArrowException as error:
        raise _wrong(path, f"{str(error).splitlines()[0][:200]}", "a Parquet file") from error
    return images, labels


def _picture(path: Path, row: int, encoded: object) -> Pixels:
    """(3, 32, 32)"""
    from PIL import Image

    if isinstance(encoded, dict):  # as Hugging Face's datasets store them: bytes and a path
        encoded = encoded.get("bytes")
    if not isinstance(encoded, bytes) or len(encoded) > MAX_IMAGE_BYTES:
        raise _wrong(path, f"no picture in row {row}", "PNG or JPEG bytes")
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as picture:
            if picture.size != (SIDE, SIDE):  # told by the header, before anything is decoded
                raise _wrong(path, f"a picture of {picture.size[0]}x{picture.size[1]} in row {row}", "32x32 pixels")
            return np.asarray(picture.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _wrong(path, f"a picture that cannot be decoded in row {row}", "PNG or JPEG bytes") from error


def _label(path: Path, row: int, label: object) -> int:
    if type(label) is not int or not 0 <= label < CLASSES:
        raise _wrong(path, f"the label {str(label)[:40]} in row {row}", "labels 0-9")
    return label


def _wrong(path: Path, found: str, wanted: str) -> ModelError:
    return ModelError(f"{path} is not CIFAR-10: {found}", try_=wanted)
