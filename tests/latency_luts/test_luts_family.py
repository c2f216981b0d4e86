"""Which kernels are of one family, and what decides their time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts import OpKey
from latency_luts.family import alignment_text, member, work


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


@pytest.mark.parametrize(
    ("text", "told", "at"),
    [
        ("mul[in=1x192x14x14 act=none dtype=float32 detail=with=1x192x1x1]", "1xCxSxS with=1xCx1x1", (192, 14)),
        ("concat[in=1x24x24x24 dtype=float32 detail=axis=1 with=1x92x24x24]", "1xCxSxS with=1x92xSxS", (24, 24)),
        ("slice[in=1x116x24x24 dtype=float32 detail=out=1x58x24x24]", "1xCxSxS out=1xC/2xSxS", (116, 24)),
        ("reshape[in=1x24x116x24 dtype=float32 detail=out=1x2x58x24x24]", "1xCxHxW out=1x2xH/2xWxW", (24, 116, 24)),
        ("reshape[in=1x116x2x12x12 dtype=float32 detail=out=1x12x232x12]", "1xCx2xSxS out=1xSx2CxS", (116, 12)),
        ("transpose[in=1x2x58x6x4 dtype=float32 detail=perm=0,2,1,3,4]", "1x2xCxHxW perm=0,2,1,3,4", (58, 6, 4)),
        ("add[in=1x16x1x1 act=none dtype=float32 detail=with=1x16x1x1]", "1xCxSxS with=1xCx1x1", (16, 1)),
    ],
)  # fmt: skip
def test_a_detail_s_shapes_are_told_by_the_kernel_s_own(text: str, told: str, at: tuple[int, ...]) -> None:
    place = member(text)
    assert place is not None and place.at == at
    shape, detail = told.split()
    assert f"[in={shape} " in place.family and place.family.endswith(f"{detail}]")


@pytest.mark.parametrize(("count", "pooled", "usual"), [(64, 16, 4), (24, 8, 4), (12, 4, 4), (6, 1, 1), (7, 1, 1)])
def test_pooling_is_kept_apart_by_blocks_of_channels(count: int, pooled: int, usual: int) -> None:
    for op in ("avg_pool", "max_pool"):
        place = member(f"{op}[in=1x{count}x14x14 k=3x3 s=2x2 p=1,1,1,1 dtype=float32]")
        assert place is not None and place.aligned == (pooled,)
    place = member(f"mean[in=1x{count}x14x14 dtype=float32 detail=axes=2,3]")
    assert place is not None and place.aligned == (usual,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("avg_pool[in=1x32x7x7 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]", "channels % 16 == 0"),
        ("max_pool[in=1x24x7x7 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]", "channels % 16 == 8"),
        ("max_pool[in=1x12x7x7 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]", "channels % 8 == 4"),
        ("max_pool[in=1x6x7x7 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]", "channels % 4 != 0"),
        (str(conv(32, 6)), "c_in % 4 == 0, c_out % 4 != 0"),
        ("reshape[in=1x520x1x1 dtype=float32 detail=x]", ""),
    ],
)
def test_an_alignment_is_told_in_words(text: str, said: str) -> None:
    place = member(text)
    assert place is not None and alignment_text(place) == said


def test_a_layout_has_no_alignment() -> None:
    for text in ("transpose[in=1x26x116x26 dtype=float32 detail=perm=0,2,3,1]", "reshape[in=1x520x1x1 dtype=float32 detail=x]"):
        place = member(text)
        assert place is not None and place.aligned == () and len(place.axes) == len(place.at)


@given(st.integers(2, 64), st.integers(5, 99), st.integers(5, 99))
def test_kernels_that_move_other_shapes_are_not_joined(size: int, own: int, other: int) -> None:
    def text(c: int, beside: int) -> str:
        return f"concat[in=1x{8 * c}x{size}x{size} dtype=float32 detail=axis=1 with=1x{8 * beside}x{size}x{size}]"

    alike, another = member(text(own, own)), member(text(own, other))
    assert alike is not None and another is not None and (alike.family == another.family) == (own == other)


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
