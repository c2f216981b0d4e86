"""Which kernels are of one family, and what decides their time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts import OpKey
from latency_luts.family import member, work


def conv(c_in: int = 16, c_out: int = 24, size: int | tuple[int, int] = 14, **more: object) -> OpKey:
    height, width = (size, size) if isinstance(size, int) else size
    fields: dict[str, object] = {"dtype": "float32", **more}
    return OpKey("conv2d", (1, c_in, height, width), c_out, **fields)  # type: ignore[arg-type]


def family(key: OpKey) -> tuple[str, tuple[bool, ...]]:
    place = member(str(key))
    assert place is not None
    return place.family, place.aligned


def test_what_varies_stands_on_the_axes() -> None:
    dense = member(str(conv(16, 24, 14)))
    assert dense is not None and (dense.axes, dense.at) == (("c_in", "c_out", "size"), (16, 24, 14))
    assert dense.family == "conv2d[in=1xCxSxS out=D k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=0 dtype=float32]"
    depthwise = member(str(conv(32, 64, (7, 14), groups=32)))
    assert depthwise is not None and (depthwise.axes, depthwise.at) == (("channels", "height", "width"), (32, 7, 14))
    assert "out=2C" in depthwise.family and "g=C" in depthwise.family
    linear = member("linear[in=1x1280 out=1000 act=none add=0 dtype=float32]")
    assert linear is not None and (linear.axes, linear.at) == (("c_in", "c_out"), (1280, 1000))
    mean = member("mean[in=1x96x7x7 dtype=float32 detail=axes=2,3]")
    assert mean is not None and (mean.axes, mean.at) == (("channels", "size"), (96, 7))


@pytest.mark.parametrize(
    "other",
    [
        conv(kernel=(3, 3)), conv(stride=(2, 2)), conv(padding=(1, 1, 1, 1)), conv(padding=(0, 0, 1, 1)), conv(dilation=(2, 2)),
        conv(activation="relu6"), conv(fused_add=True), conv(dtype="int8"), conv(detail="x"), conv(groups=2),
        conv(16, 16, groups=16), conv(size=(14, 7)), conv(c_in=18), conv(c_out=25),
        OpKey("conv2d", (2, 16, 14, 14), 24, dtype="float32"),
        OpKey("linear", (1, 16), 24, dtype="float32"), OpKey("add", (1, 16, 14, 14), dtype="float32"),
    ],
    ids=str,
)  # fmt: skip
def test_families_are_never_joined(other: OpKey) -> None:
    assert family(other) != family(conv())


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 99))
def test_channels_of_one_alignment_and_square_sizes_are_one_family(a: int, b: int, size: int) -> None:
    assert family(conv(4 * a, 4 * b, size)) == family(conv())
    assert family(conv(4 * a - 1, 4 * b, size)) == family(conv(4 * b + 1, 4 * a))
    assert family(conv(4 * a, 4 * a, size, groups=4 * a)) == family(conv(4 * b, 4 * b, 3, groups=4 * b))


@pytest.mark.parametrize(
    "text", ["add[in=scalar act=none dtype=float32]", "add[in=1x3x3 act=none dtype=float32]", "no key"]
)
def test_other_shapes_have_no_axes(text: str) -> None:
    assert member(text) is None


@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 224), st.sampled_from([1, 2]))
def test_the_work_of_a_dense_convolution_in_closed_form(c_in: int, c_out: int, size: int, stride: int) -> None:
    key = conv(c_in, c_out, size, kernel=(3, 3), stride=(stride, stride), padding=(1, 1, 1, 1))
    out = -(-size // stride)
    (row,) = work(key, ("c_in", "c_out", "size"), np.array([[c_in, c_out, size]], dtype=float), 1)
    macs, weights = out * out * c_out * c_in * 9, c_out * c_in * 9
    assert row.tolist() == [1, macs, c_in * size * size, c_out * out * out, weights]


def test_the_work_of_other_kernels_and_of_blocks_of_channels() -> None:
    depthwise = conv(32, 32, groups=32, kernel=(5, 5), padding=(2, 2, 2, 2))
    (row,) = work(depthwise, ("channels", "size"), np.array([[20.0, 10.0]]), 8)
    assert row.tolist() == [1, 24 * 100 * 25, 24 * 100, 24 * 100, 24 * 25]
    linear = OpKey("linear", (1, 8), 8, dtype="float32")
    (row,) = work(linear, ("c_in", "c_out"), np.array([[12.0, 17.0]]), 16)
    assert row.tolist() == [1, 16 * 32, 16, 32, 16 * 32]
    grouped = conv(32, 32, groups=4)
    (row,) = work(grouped, ("c_in", "c_out", "size"), np.array([[32.0, 64.0, 5.0]]), 1)
    assert row[1] == 25 * 64 * 32 / 4


@given(st.data(), st.sampled_from([1, 4, 8, 16, 32]))
def test_work_grows_with_each_axis(data: st.DataObject, step: int) -> None:
    sizes = st.integers(1, 500)
    smaller = data.draw(st.tuples(sizes, sizes, st.integers(3, 224)))
    larger = tuple(each + data.draw(st.integers(0, 9)) for each in smaller)
    key = conv(kernel=(3, 3), stride=(2, 2))
    a, b = work(key, ("c_in", "c_out", "size"), np.array([smaller, larger], dtype=float), step)
    assert (a <= b).all()
