"""Reading a JSON tree with errors that name the place: `profiles[2].latency_ms.median`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn

from pipeline.errors import UsageError
from pipeline.report.text import clean, shorten


class Node:
    """One object of a result document. Every getter gives a cleaned, checked value or raises UsageError."""

    def __init__(self, value: object, where: str = "") -> None:
        if not isinstance(value, Mapping):
            raise UsageError(f"the result document holds {_seen(value)} at {where or 'its top'}, not an object")
        self._value = value
        self._where = where

    def _place(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def refuse(self, name: str, wanted: str, try_: str = "measure again, or the handset that wrote it") -> NoReturn:
        raise UsageError(
            f"the result document has {_seen(self._value.get(name))} as {self._place(name)}, not {wanted}", try_=try_
        )

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A cleaned text; `default` stands for null and for a missing field, without it both are errors."""
        value = self._value.get(name, default)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.refuse(name, "a text")
        return clean(value)

    def texts(self, name: str) -> list[str]:
        return [self._wrap(name, value, i).text("_") for i, value in enumerate(self._list(name))]

    def flag(self, name: str) -> bool:
        value = self._value.get(name)
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def number(self, name: str) -> float:
        value = self.maybe_number(name)
        if value is None:
            self.refuse(name, "a number")
        return value

    def maybe_number(self, name: str) -> float | None:
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.refuse(name, "a finite number")
        return float(value)

    def numbers(self, name: str) -> list[float]:
        return [self._wrap(name, value, i).number("_") for i, value in enumerate(self._list(name))]

    def known_numbers(self, name: str) -> list[float]:
        """The numbers of a list in which null stands for what could not be read."""
        items = [self._wrap(name, value, i) for i, value in enumerate(self._list(name))]
        return [item.number("_") for item in items if item.has("_")]

    def pair(self, name: str) -> tuple[float, float]:
        values = self.numbers(name)
        if len(values) != 2 or values[0] > values[1]:
            self.refuse(name, "two numbers, the smaller one first")
        return values[0], values[1]

    def every_number(self, leave_out: tuple[str, ...] = ()) -> dict[str, float]:
        """All other numbers of the object by their cleaned names; null ones are left out."""
        names = [name for name in self._value if name not in leave_out and self.has(name)]
        return {clean(str(name)): self.number(name) for name in names}

    def child(self, name: str) -> Node:
        return Node(self._value.get(name), self._place(name))

    def maybe_child(self, name: str) -> Node | None:
        return self.child(name) if self.has(name) else None

    def children(self, name: str) -> list[Node]:
        return [Node(value, f"{self._place(name)}[{i}]") for i, value in enumerate(self._list(name))]

    def flat(self) -> dict[str, str]:
        """Every field as one cleaned text, for a page that shows what it does not know."""
        return {clean(str(name)): _words(value) for name, value in self._value.items() if value is not None}

    def _list(self, name: str) -> list[object]:
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.refuse(name, "a list")
        return list(value)

    def _wrap(self, name: str, value: object, index: int) -> _Item:
        return _Item(value, f"{self._place(name)}[{index}]")


class _Item(Node):
    """An element of a list of plain values, under the name "_"; errors name its index."""

    def __init__(self, value: object, where: str) -> None:
        super().__init__({"_": value}, where)

    def _place(self, name: str) -> str:
        return self._where


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(str(name))}={_words(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(inner) for inner in value)
    return clean(str(value))


def _seen(value: object) -> str:
    return shorten(clean(repr(value)), 60) if value is not None else "nothing"


def document_of(document: object, kind: str, schema_version: int) -> Node:
    """The top of a result document. Raises: UsageError: it is of another kind, or of a newer schema than is known here."""
    node = Node(document)
    if node.text("kind") != kind:
        node.refuse("kind", f"a {kind}")
    if node.number("schema_version") > schema_version:
        node.refuse("schema_version", f"at most {schema_version}", try_="a newer handset")
    return node
