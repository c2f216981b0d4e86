"""Grids: which kernels they make, and that one of a billion points is refused before it is made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from latency_luts import OpKey
from pipeline.errors import UsageError
from pipeline.sweep.grid import Grid, read_grid, variants

POINT = OpKey("conv2d", (1, 64, 14, 14), 384, activation="relu6", dtype="float32")
DEPTHWISE = OpKey("conv2d", (1, 96, 56, 56), 96, (3, 3), (2, 2), (1, 1, 1, 1), groups=96, dtype="float32")
FIRST = OpKey("conv2d", (1, 3, 224, 224), 32, (3, 3), (2, 2), (1, 1, 1, 1), dtype="float32")
LINEAR = OpKey("linear", (1, 1280), 1000, dtype="float32")
CONCAT = OpKey("concat", (1, 36, 8, 8), dtype="float32", detail="axis=1 out=1x72x8x8")
ALONE = Grid(width_points=1, kernel_sizes=(), expansions=(), resolutions=())
"""Varies nothing."""


def test_a_grid_of_nothing_makes_the_kernels_themselves() -> None:
    keys = [POINT, DEPTHWISE, FIRST, LINEAR, CONCAT, POINT]
    assert variants(keys, ALONE) == [POINT, DEPTHWISE, FIRST, LINEAR, CONCAT]


def test_widths_are_multiples_of_the_step_from_low_to_high() -> None:
    grid = Grid(width_low=0.25, width_high=1.5, channel_step=8, width_points=5, expansions=(), kernel_sizes=())
    found = variants([POINT], grid)
    ins, outs = ({key.input_shape[1] for key in found}, {key.out_channels for key in found})
    assert found[0] == POINT and len(found) == len(ins) * len(outs)
    assert ins == {16, 24, 40, 64, 96} and min(outs) == 96 and max(outs) == 576
    assert all(width % 8 == 0 for width in ins | outs)
    assert {key.activation for key in found} == {"relu6"} and {key.input_shape[2:] for key in found} == {(14, 14)}


def test_a_depthwise_convolution_has_one_width_and_as_many_groups() -> None:
    found = variants([DEPTHWISE], Grid(expansions=(), kernel_sizes=(3, 5, 7)))
    assert all(key.input_shape[1] == key.out_channels == key.groups for key in found)
    assert {key.kernel for key in found} == {(3, 3), (5, 5), (7, 7)}
    assert {(key.kernel[0], key.padding) for key in found} == {(3, (1,) * 4), (5, (2,) * 4), (7, (3,) * 4)}
    assert {key.stride for key in found} == {(2, 2)}


def test_a_first_layer_keeps_its_three_channels_and_a_linear_layer_has_two_widths() -> None:
    assert {key.input_shape[1] for key in variants([FIRST], Grid())} == {3}
    found = variants([LINEAR], Grid())
    assert len({key.input_shape for key in found}) > 3 and len({key.out_channels for key in found}) > 3


def test_what_its_detail_ties_to_its_shape_is_not_varied_in_width() -> None:
    assert variants([CONCAT], Grid()) == [CONCAT]
    grouped = OpKey("conv2d", (1, 240, 7, 7), 60, groups=3, dtype="float32")
    assert variants([grouped], Grid()) == [grouped]


def test_resolutions_change_height_and_width_as_a_network_does() -> None:
    grid = Grid(width_points=1, kernel_sizes=(), expansions=(), resolutions=(128, 160, 224), base_resolution=224)
    assert [key.input_shape[2:] for key in variants([POINT], grid)] == [(14, 14), (8, 8), (10, 10)]
    odd = OpKey("conv2d", (1, 8, 7, 7), 8, dtype="float32")
    assert [key.input_shape[2] for key in variants([odd], grid)] == [7, 4, 5]  # 128/32, 160/32
    pooled = OpKey("conv2d", (1, 8, 1, 1), 8, dtype="float32")
    assert variants([pooled], grid) == [pooled]


def test_expansions_are_for_convolutions_that_widen_or_narrow() -> None:
    grid = Grid(width_points=2, width_low=1.0, width_high=1.0, kernel_sizes=(), expansions=(3.0, 4.0))
    narrow = OpKey("conv2d", (1, 144, 56, 56), 24, dtype="float32")
    same = OpKey("conv2d", (1, 64, 56, 56), 64, dtype="float32")
    assert {(key.input_shape[1], key.out_channels) for key in variants([narrow], grid)} == {
        (144, 24),
        (72, 24),
        (96, 24),
    }
    assert variants([same], grid) == [same]


def test_both_sides_of_a_step_are_taken() -> None:
    grid = Grid(width_points=2, stairs={"conv2d": 16}, kernel_sizes=(), expansions=())
    widths = {key.out_channels for key in variants([DEPTHWISE], grid)}
    assert widths == {24, 32, 33, 96, 97, 144, 145}


def test_a_window_that_does_not_fit_is_left_out() -> None:
    small = OpKey("conv2d", (1, 8, 3, 3), 8, (3, 3), groups=8, dtype="float32")
    assert {key.kernel for key in variants([small], Grid())} == {(3, 3), (5, 5), (7, 7)}  # the padding grows with it
    tight = OpKey("conv2d", (1, 8, 56, 56), 8, (7, 7), groups=8, dtype="float32")
    grid = Grid(width_points=1, resolutions=(16,), kernel_sizes=(7,))
    assert variants([tight], grid) == [tight]


def test_a_billion_points_are_refused_with_their_count_and_what_to_reduce() -> None:
    grid = Grid(width_points=4096, resolutions=tuple(range(32, 96)), max_points=1_000_000)
    start = time.perf_counter()
    with pytest.raises(UsageError, match=r"up to [0-9,]{13,} kernels of 1, more than max_points = 1,000,000") as caught:
        variants([POINT], grid)
    assert time.perf_counter() - start < 1
    assert "width_points" in str(caught.value) and "\n" not in str(caught.value)


def test_the_count_is_never_below_what_is_made() -> None:
    keys = [POINT, DEPTHWISE, FIRST, LINEAR, CONCAT]
    for grid in (Grid(), Grid(stairs={"conv2d": 16}), Grid(resolutions=(128, 160, 192))):
        made = len(variants(keys, grid))
        with pytest.raises(UsageError) as caught:
            variants(keys, Grid(**{**grid.__dict__, "max_points": 1}))
        told = int(str(caught.value).split("up to ")[1].split(" ")[0].replace(",", ""))
        assert made <= told


def test_a_file_gives_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        "width_low = 0.5\nwidth_points = 3\nresolutions = [128, 224]\nexpansions = [3, 6.5]\n[stairs]\nconv2d = 16\n"
    )
    expected = Grid(width_low=0.5, width_points=3, resolutions=(128, 224), expansions=(3, 6.5), stairs={"conv2d": 16})
    assert read_grid(path).grid == expected
    path.write_text("")
    assert read_grid(path).grid == Grid()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("width_low = ", "no TOML"),
        ("wobble = 1", "wobble"),
        ("width_points = '5'", "width_points"),
        ("width_points = 5.5", "width_points"),
        ("width_points = true", "width_points"),
        ("width_points = 0", "width_points"),
        ("width_points = 1000000000", "width_points"),
        ("max_points = 1000000001", "max_points"),
        ("width_low = nan", "width_low"),
        ("width_low = 2", "width_low"),
        ("width_high = inf", "width_high"),
        ("resolutions = 224", "resolutions"),
        ("resolutions = ['x']", "resolutions"),
        ("resolutions = [0]", "resolutions"),
        ("multipliers = [0]", "multipliers"),
        (f"resolutions = {list(range(1, 100))}", "resolutions"),
        ("expansions = [nan]", "expansions"),
        ("stairs = 16", "stairs"),
        ("[stairs]\nconv2d = 0", "stairs"),
        ("channel_step = 0", "channel_step"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_what_is_wrong(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named) as caught:
        read_grid(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="no TOML"):
        read_grid(tmp_path / "grid.toml")


def test_a_kernel_whose_detail_tells_shapes_keeps_its_size() -> None:
    concat = OpKey("concat", (1, 24, 28, 28), dtype="float32", detail="axis=1 with=1x24x28x28")
    mean = OpKey("mean", (1, 24, 28, 28), dtype="float32", detail="axes=2,3")
    grid = Grid(resolutions=(112, 224))
    assert variants([concat], grid) == [concat]
    assert {key.input_shape[2] for key in variants([mean], grid)} == {14, 28}
