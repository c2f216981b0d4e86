"""One kernel, one text: `str` and `OpKey.parse` are inverses, and everything else is refused in one line."""

from __future__ import annotations

import dataclasses
import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latency_luts import InvalidKey, LutError, OpKey
from latency_luts.key import MAX_TEXT, short

CONV = OpKey(
    op="conv2d", input_shape=(1, 32, 112, 112), out_channels=64, kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1),
    activation="relu6", dtype="float32",
)  # fmt: skip
CONV_TEXT = "conv2d[in=1x32x112x112 out=64 k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=1 act=relu6 add=0 dtype=float32]"

_big = st.integers(1, 2**31 - 1)
_pair = st.tuples(_big, _big)
_names = st.text(string.ascii_lowercase + string.digits + "_", max_size=20).map(lambda rest: "x" + rest)


@st.composite
def keys(draw: st.DrawFn) -> OpKey:
    groups = draw(st.integers(1, 64))
    conv = draw(st.booleans())
    shape = (1, groups * draw(st.integers(1, 9)), draw(_big), draw(_big))
    return OpKey(
        op="conv2d" if conv else draw(_names | st.sampled_from(("add", "linear", "max_pool", "transpose"))),
        input_shape=shape if conv else tuple(draw(st.lists(_big, max_size=8))),
        out_channels=groups * draw(st.integers(1, 9)) if conv else draw(st.integers(0, 2**31 - 1)),
        kernel=draw(_pair),
        stride=draw(_pair),
        padding=draw(st.tuples(*[st.integers(0, 2**31 - 1)] * 4)),
        dilation=draw(_pair),
        groups=groups,
        activation=draw(_names | st.sampled_from(("none", "clip(-1,1)", "leaky_relu(0.01)"))),
        fused_add=draw(st.booleans()),
        dtype=draw(_names),
        detail=draw(st.text(string.printable[:95], max_size=200)),
    )


def test_the_text_of_a_convolution_is_the_documented_one() -> None:
    assert str(CONV) == CONV_TEXT
    assert OpKey.parse(CONV_TEXT) == CONV


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (OpKey("add", (1, 64, 56, 56), dtype="float32"), "add[in=1x64x56x56 act=none dtype=float32]"),
        (OpKey("softmax", (1, 1000), dtype="int8", detail="axis=1"), "softmax[in=1x1000 dtype=int8 detail=axis=1]"),
        (OpKey("linear", (1, 64), 10, dtype="int8"), "linear[in=1x64 out=10 act=none add=0 dtype=int8]"),
        (OpKey("shape", (), dtype="int64"), "shape[in=scalar dtype=int64]"),
        (
            OpKey("max_pool", (1, 8, 4, 4), kernel=(2, 2), stride=(2, 2), dtype="float32"),
            "max_pool[in=1x8x4x4 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]",
        ),
    ],
)
def test_fields_that_an_op_does_not_have_are_left_out(key: OpKey, text: str) -> None:
    assert str(key) == text
    assert OpKey.parse(text) == key


@given(keys())
@example(OpKey("x", (1,), dtype="a", detail="] detail= dtype=[b]"))
@example(OpKey("x", (1,), dtype="a", detail=" "))
def test_parse_is_the_inverse_of_str(key: OpKey) -> None:
    assert len(str(key)) <= MAX_TEXT
    assert OpKey.parse(str(key)) == key


@given(keys(), keys())
def test_two_kernels_have_two_texts(a: OpKey, b: OpKey) -> None:
    assert (str(a) == str(b)) == (a == b)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_shape", (1, 32, 112, 113)), ("out_channels", 65), ("kernel", (3, 5)), ("stride", (1, 2)),
        ("padding", (1, 1, 1, 0)), ("dilation", (2, 1)), ("groups", 32), ("activation", "none"), ("fused_add", True),
        ("dtype", "int8"), ("detail", "a"), ("op", "conv3d"),
    ],
)  # fmt: skip
def test_every_field_is_in_the_text(name: str, value: Any) -> None:
    changed = dataclasses.replace(CONV, **{name: value, **({"out_channels": 64} if name == "groups" else {})})
    assert str(changed) != CONV_TEXT
    assert OpKey.parse(str(changed)) == changed


def test_the_list_of_fields_above_is_complete() -> None:
    assert len(dataclasses.fields(OpKey)) == 12


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("op", "Conv"), ("op", ""), ("op", "a b"), ("op", "a\n"), ("op", None), ("op", "x" * 65),
        ("input_shape", [1, 32, 4, 4]), ("input_shape", (1, 0, 4, 4)), ("input_shape", (1, True, 4, 4)),
        ("input_shape", (1, 32.0, 4, 4)), ("input_shape", (1, 32, 4)), ("input_shape", (1, 32, 4, 2**31)),
        ("out_channels", 0), ("out_channels", -1), ("kernel", (3,)), ("kernel", (0, 3)), ("kernel", 3),
        ("stride", (1, 0)), ("padding", (1, 1)), ("padding", (0, 0, 0, -1)), ("dilation", (0, 1)),
        ("groups", 0), ("groups", 3), ("groups", True), ("activation", ""), ("activation", "relu 6"),
        ("activation", "clip(-1, 1)"), ("activation", "clip()"), ("activation", "a]"), ("fused_add", 1),
        ("dtype", ""), ("dtype", "Float"), ("dtype", "ünt8"), ("detail", "a\nb"), ("detail", "\x00"), ("detail", "é"),
        ("detail", "\ud800"), ("detail", "x" * 201), ("detail", None),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(InvalidKey) as caught:
        dataclasses.replace(CONV, **{name: value})
    assert f"{name}=" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_groups_that_do_not_divide_are_refused_with_both_channel_counts() -> None:
    with pytest.raises(InvalidKey, match="32 channels in and 48 out"):
        dataclasses.replace(CONV, out_channels=48, groups=32)


def test_a_shape_has_at_most_eight_dimensions() -> None:
    assert OpKey("add", (1,) * 8, dtype="a").input_shape == (1,) * 8
    with pytest.raises(InvalidKey, match="at most 8"):
        OpKey("add", (1,) * 9, dtype="a")


def test_a_dtype_must_be_given() -> None:
    with pytest.raises(TypeError, match="dtype"):
        OpKey("add", (1, 2))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "form"),
        ("conv2d", "form"),
        ("conv2d[]", "not one of"),
        (CONV_TEXT + "\n", "form"),
        (" " + CONV_TEXT, "form"),
        (CONV_TEXT.replace(" k=3x3", "  k=3x3"), "not one of"),
        (CONV_TEXT.replace("k=3x3", "k=3x3 k=3x3"), "twice"),
        (CONV_TEXT.replace("k=3x3", "k=03x3"), "canonical"),
        (CONV_TEXT.replace("k=3x3", "k=3"), "kernel"),
        (CONV_TEXT.replace("k=3x3", "k=-3x3"), "whole numbers"),
        (CONV_TEXT.replace("k=3x3", "k=٣x3"), "form"),
        (CONV_TEXT.replace("out=64", "out=6_4"), "whole numbers"),
        (CONV_TEXT.replace("out=64", "out=" + "9" * 500), "whole numbers"),
        (CONV_TEXT.replace("add=0", "add=2"), "0 or 1"),
        (CONV_TEXT.replace(" dtype=float32", ""), "dtype is missing"),
        (CONV_TEXT.replace("in=1x32x112x112 ", ""), "in is missing"),
        (CONV_TEXT.replace(" g=1", ""), "canonical"),
        (CONV_TEXT.replace("]", " detail=]"), "canonical"),
        (CONV_TEXT.replace("k=3x3 s=2x2", "s=2x2 k=3x3"), "canonical"),
        (CONV_TEXT.replace("act=", "activation="), "not one of"),
        ("x" * 10_000_000, "at most"),
    ],
)
def test_a_text_that_is_not_canonical_is_refused(text: str, found: str) -> None:
    with pytest.raises(InvalidKey, match=found) as caught:
        OpKey.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_the_canonical_text_is_offered() -> None:
    with pytest.raises(InvalidKey) as caught:
        OpKey.parse(CONV_TEXT.replace(" g=1", ""))
    assert caught.value.try_ == CONV_TEXT


@pytest.mark.parametrize("value", [None, 3, b"add[in=1 dtype=a]", CONV])
def test_only_a_text_is_parsed(value: Any) -> None:
    with pytest.raises(InvalidKey):
        OpKey.parse(value)


def _parsed_or_refused(text: str) -> None:
    try:
        key = OpKey.parse(text)
    except LutError as error:
        assert "\n" not in str(error)
    else:
        assert str(key) == text


@given(st.text())
def test_any_text_is_parsed_exactly_or_refused(text: str) -> None:
    _parsed_or_refused(text)


@settings(max_examples=300)
@given(keys(), st.data())
def test_a_damaged_key_is_parsed_exactly_or_refused(key: OpKey, data: st.DataObject) -> None:
    text = str(key)
    at = data.draw(st.integers(0, len(text) - 1))
    _parsed_or_refused(text[:at] + data.draw(st.sampled_from(("", " ", "=", "]", "x", "0", ","))) + text[at + 1 :])


@given(st.text(max_size=300) | st.integers() | st.binary(max_size=300))
def test_a_value_in_a_message_is_one_short_ascii_line(value: object) -> None:
    text = short(value)
    assert len(text) <= 120
    assert text.isascii()
    assert text.isprintable()
