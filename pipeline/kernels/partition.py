"""The order in which TFLite runs a file of which a delegate takes a part."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Op = TypeVar("Op")


def execution_order(
    ops: Sequence[Op],
    reads: Callable[[Op], Iterable[Hashable]],
    writes: Callable[[Op], Iterable[Hashable]],
    delegated: Callable[[Op], bool],
) -> list[Op]:
    """Ops of one kind, delegated or not, run together as far as their inputs allow; file order within each such part.

    An op behind one that the interpreter runs in the file may so run before it, where it does not read its output.

    Args: reads, writes: an op's tensors; what no op writes is there from the beginning.
    """
    missing = {tensor for op in ops for tensor in writes(op)}
    waiting, order = list(ops), list[Op]()
    while waiting:
        ready = next((op for op in waiting if not missing & set(reads(op))), waiting[0])
        kind = delegated(ready)
        part: list[Op] = []
        for op in waiting:
            if op is ready or (delegated(op) == kind and not missing & set(reads(op))):
                part.append(op)
                missing -= set(writes(op))
        order += part
        gone = {id(op) for op in part}
        waiting = [op for op in waiting if id(op) not in gone]
    return order
