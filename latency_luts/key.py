"""The identity of one fused kernel, and its canonical text.

An `OpKey` holds all that decides how long a kernel takes on a given device, runtime and thread count, which are the
table's context and not part of the key. `str(key)` and `OpKey.parse` are exact inverses in both directions: one kernel
has one text, and a text that is not the canonical one is refused rather than read as a second name of the same kernel.

    conv2d[in=1x32x112x112 out=64 k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=1 act=relu6 add=0 dtype=float32]
    transpose[in=1x3x224x224 dtype=float32 detail=perm=0,2,3,1]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

MAX_TEXT = 1000  # characters of a whole key; the longest valid key is shorter
_MAX_INT = 2**31 - 1
_MAX_RANK = 8
_MAX_DETAIL = 200

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ACTIVATION = re.compile(r"[a-z][a-z0-9_]{0,31}(\([-+.,0-9a-z_]{1,64}\))?")
_DETAIL = re.compile(r"[ -~]*")  # printable ASCII; it stands last in the text, so spaces and brackets are safe
_KEY = re.compile(r"([a-z][a-z0-9_]{0,63})\[([ -~]*)\]")
_INT = re.compile(r"[0-9]{1,10}")


class LutError(Exception):
    """Base of this package's errors; the tree is drawn in `latency_luts.errors`.

    Args:
        message: what was asked and what was found, one line without a full stop.
        try_: the next thing to do.
    """

    exit_status = 1

    def __init__(self, message: str, *, try_: str = "") -> None:
        super().__init__(f"{message}; try: {try_}" if try_ else message)
        self.try_ = try_


class InvalidKey(LutError, ValueError):
    exit_status = 2


class _Token(NamedTuple):
    name: str
    attribute: str
    kind: Literal["ints", "int", "flag", "text"]
    separator: str = ""


# The order of the text.
_TOKENS = (
    _Token("in", "input_shape", "ints", "x"),
    _Token("out", "out_channels", "int"),
    _Token("k", "kernel", "ints", "x"),
    _Token("s", "stride", "ints", "x"),
    _Token("p", "padding", "ints", ","),
    _Token("d", "dilation", "ints", "x"),
    _Token("g", "groups", "int"),
    _Token("act", "activation", "text"),
    _Token("add", "fused_add", "flag"),
    _Token("dtype", "dtype", "text"),
    _Token("detail", "detail", "text"),
)
_BY_NAME = {token.name: token for token in _TOKENS}
_DEFAULTS: dict[str, object] = {
    "out": 0, "k": (1, 1), "s": (1, 1), "p": (0, 0, 0, 0), "d": (1, 1), "g": 1, "act": "none", "add": False, "detail": "",
}  # fmt: skip

# What an op's text always shows; any other field is shown where it differs from its neutral default.
_SHOWN: dict[str, frozenset[str]] = {
    "conv2d": frozenset(("out", "k", "s", "p", "d", "g", "act", "add")),
    "linear": frozenset(("out", "act", "add")),
    "avg_pool": frozenset(("k", "s", "p")),
    "max_pool": frozenset(("k", "s", "p")),
    "add": frozenset(("act",)),
    "mul": frozenset(("act",)),
}


@dataclass(frozen=True)
class OpKey:
    """The frozen attributes of one fused kernel.

    Args:
        op: snake case: conv2d (grouped and depthwise too, `groups` says), linear, add, avg_pool, reorder_in, ...
        input_shape: of the first input, (batch, channels, height, width) for images whatever the runtime's layout;
            () for a scalar; shapes of further inputs go into `detail`.
        out_channels: 0 for an op that keeps its input's channels.
        kernel, stride, dilation: (height, width), elements, at least 1.
        padding: (top, left, bottom, right), elements.
        groups: divides the channels in and out of a conv2d.
        activation: what the runtime fused after it: "none", "relu", "relu6", "hardswish", "clip(-1,1)", ...
        fused_add: whether a residual is added inside the kernel.
        dtype: "float32", "int8", ...; it has no default, a forgotten one would file an int8 kernel under float32.
        detail: what else changes its time ("axes=2,3", "perm=0,2,3,1"): printable ASCII, at most 200 characters.

    Raises:
        InvalidKey: a field has the wrong type or is out of range; its name and value are in the message.
    """

    op: str
    input_shape: tuple[int, ...]
    out_channels: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: str = "none"
    fused_add: bool = False
    dtype: str = field(kw_only=True)
    detail: str = ""

    def __post_init__(self) -> None:
        _check_text("op", self.op, _NAME, "a snake case name such as conv2d")
        _check_ints("input_shape", self.input_shape, None, 1)
        _check_int("out_channels", self.out_channels, 0)
        _check_ints("kernel", self.kernel, 2, 1)
        _check_ints("stride", self.stride, 2, 1)
        _check_ints("padding", self.padding, 4, 0)
        _check_ints("dilation", self.dilation, 2, 1)
        _check_int("groups", self.groups, 1)
        _check_text("activation", self.activation, _ACTIVATION, "a name such as relu6, or clip(-1,1)")
        if type(self.fused_add) is not bool:
            raise _invalid("fused_add", self.fused_add, "True or False")
        _check_text("dtype", self.dtype, _NAME, "a name such as float32 or int8")
        _check_text("detail", self.detail, _DETAIL, "printable ASCII")
        if len(self.detail) > _MAX_DETAIL:
            raise _invalid("detail", self.detail, f"at most {_MAX_DETAIL} characters")
        if self.op == "conv2d":
            self._check_conv2d()

    def _check_conv2d(self) -> None:
        if len(self.input_shape) != 4:
            raise _invalid("input_shape", self.input_shape, "(batch, channels, height, width), as a conv2d has")
        if self.out_channels < 1:
            raise _invalid("out_channels", self.out_channels, "at least 1, as a conv2d has")
        if self.input_shape[1] % self.groups or self.out_channels % self.groups:
            channels = f"{self.input_shape[1]} channels in and {self.out_channels} out"
            raise _invalid("groups", self.groups, f"a divisor of the conv2d's {channels}")

    def __str__(self) -> str:
        shown = _SHOWN.get(self.op, frozenset())
        parts = []
        for token in _TOKENS:
            value = getattr(self, token.attribute)
            if token.name in shown or token.name not in _DEFAULTS or value != _DEFAULTS[token.name]:
                parts.append(f"{token.name}={_write(token, value)}")
        return f"{self.op}[{' '.join(parts)}]"

    @classmethod
    def parse(cls, text: str) -> OpKey:
        """The key whose `str` is exactly `text`.

        Raises:
            InvalidKey: not a key's text, a field is wrong, missing or twice there, or the text is not canonical.
        """
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise InvalidKey(
                f"a kernel's key was asked from {short(text)}, not a text of at most {MAX_TEXT} characters"
            )
        match = _KEY.fullmatch(text)
        if match is None:
            raise InvalidKey(
                f"a kernel's key was asked from {short(text)}, which has not the form op[name=value ...]",
                try_="add[in=1x64x56x56 act=none dtype=float32]",
            )
        try:
            key = cls(op=match[1], **_read_fields(match[2]))
        except InvalidKey as error:
            raise InvalidKey(f"a kernel's key was asked from {short(text)}: {error}") from error
        if str(key) != text:
            raise InvalidKey(f"the key {short(text)} is not written in the canonical way", try_=str(key))
        return key


def short(value: object) -> str:
    """`repr`, cut to one line of at most 120 characters: what an error message can carry."""
    text = repr(value[: MAX_TEXT + 1] if isinstance(value, str) else value)
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", " ")
    return text if len(text) <= 120 else text[:117] + "..."


def _invalid(name: str, value: object, wanted: str) -> InvalidKey:
    return InvalidKey(f"an OpKey was asked with {name}={short(value)}, which is not {wanted}")


def _check_text(name: str, value: object, pattern: re.Pattern[str], wanted: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise _invalid(name, value, wanted)


def _check_int(name: str, value: object, low: int) -> None:
    if type(value) is not int or not low <= value <= _MAX_INT:
        raise _invalid(name, value, f"an int of {low} ... {_MAX_INT}")


def _check_ints(name: str, value: object, length: int | None, low: int) -> None:
    lengths = f"{length}" if length is not None else f"at most {_MAX_RANK}"
    wanted = f"a tuple of {lengths} ints of {low} ... {_MAX_INT}"
    if not isinstance(value, tuple) or len(value) > _MAX_RANK or (length is not None and len(value) != length):
        raise _invalid(name, value, wanted)
    if not all(type(item) is int and low <= item <= _MAX_INT for item in value):
        raise _invalid(name, value, wanted)


def _write(token: _Token, value: Any) -> str:
    if token.kind == "ints":
        return token.separator.join(map(str, value)) or "scalar"
    return str(int(value)) if token.kind == "flag" else str(value)


def _read_fields(body: str) -> dict[str, Any]:
    """`in=1x3 dtype=float32 detail=...` -> attribute -> value."""
    body, has_detail, detail = body.partition(" detail=")
    fields: dict[str, Any] = {"detail": detail} if has_detail else {}
    for part in body.split(" "):
        name, _, value = part.partition("=")
        token = _BY_NAME.get(name)
        if token is None:
            raise InvalidKey(f"{short(part)} is not one of {', '.join(_BY_NAME)}")
        if token.attribute in fields:
            raise InvalidKey(f"{name} is there twice")
        fields[token.attribute] = _read(token, value)
    for name in ("in", "dtype"):
        if _BY_NAME[name].attribute not in fields:
            raise InvalidKey(f"{name} is missing")
    return fields


def _read(token: _Token, text: str) -> Any:
    if token.kind == "text":
        return text
    if token.name == "in" and text == "scalar":
        return ()
    parts = text.split(token.separator) if token.kind == "ints" else [text]
    if not all(_INT.fullmatch(part) for part in parts):
        raise InvalidKey(f"{token.name}={short(text)} is not made of whole numbers")
    if token.kind == "ints":
        return tuple(int(part) for part in parts)
    if token.kind == "flag" and text not in ("0", "1"):
        raise InvalidKey(f"{token.name}={short(text)} is not 0 or 1")
    return text == "1" if token.kind == "flag" else int(text)
