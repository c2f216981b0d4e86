"""What the page of a compression is made from, read from its document and checked: points in groups, published numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.report.reader import Node
from pipeline.report.text import shorten, spaced_percents

MOST_POINTS = 500
MOST_RUNTIMES = 8
MOST_PUBLISHED = 200
NAME_CHARACTERS = 40
_LARGEST = 1e15
"""Of a count or a time: what is beyond it is no network's."""


@dataclass(frozen=True)
class Latency:
    """One point in one runtime. failed: why it has no time, else empty; interval_ms: as measured, of this point alone."""

    failed: str
    ms: float
    interval_ms: tuple[float, float]
    stable: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One network. Args: before, after: top-1 as a share, around fine-tuning; node: its object in the document."""

    method: str
    budget: str
    round: int
    seed: int
    params: float
    macs: float | None
    before: float | None
    after: float | None
    predicted_ms: float | None
    coverage: float | None
    measured: Mapping[str, Latency]
    node: Node

    @property
    def top1(self) -> float | None:
        return self.before if self.after is None else self.after

    def ms(self, runtime: str) -> float | None:
        latency = self.measured.get(runtime)
        return None if latency is None or latency.failed else latency.ms


@dataclass(frozen=True)
class Group:
    """The points that differ in their seeds alone. round: which, where one budget has several."""

    method: str
    budget: str
    round: int | None
    points: tuple[Point, ...]

    @property
    def setting(self) -> str:
        budget = spaced_percents(shorten(self.budget, NAME_CHARACTERS))
        return ", ".join([*([budget] if budget else []), *([] if self.round is None else [f"round {self.round}"])])

    @property
    def label(self) -> str:
        method = shorten(self.method, NAME_CHARACTERS) or "uncompressed"
        return f"{method} at {self.setting}" if self.setting else method

    def median(self, of: Callable[[Point], float | None]) -> float | None:
        """Over the seeds that have a value."""
        return middle(of(point) for point in self.points)

    def latency(self, runtime: str) -> tuple[float, float, float] | None:
        """Median over the seeds, the lowest and the highest end of their intervals, in ms; None where none has a time."""
        found = [one for point in self.points if (one := point.measured.get(runtime)) is not None and not one.failed]
        if not found:
            return None
        lows, highs = zip(*(one.interval_ms for one in found), strict=True)
        return statistics.median(one.ms for one in found), min(lows), max(highs)


@dataclass(frozen=True)
class Speed:
    """ratio: how many times as fast as the uncompressed network; sure: their intervals do not overlap."""

    ratio: float
    sure: bool


@dataclass(frozen=True)
class Published:
    """change: in points of top-1; the removed are shares of the network that was published."""

    method: str
    network: str
    change: float | None
    params_removed: float | None
    macs_removed: float | None
    reference: str


@dataclass(frozen=True)
class Comparison:
    """own: the uncompressed network; groups: by method as they come, each from large to small; predicted_in: a runtime."""

    network: str
    own: Group
    groups: tuple[Group, ...]
    methods: tuple[str, ...]
    runtimes: tuple[str, ...]
    published: tuple[Published, ...]
    predicted_in: str

    def removed(self, group: Group, of: Callable[[Point], float | None]) -> float | None:
        """The share of a count that is gone; negative where there is more than before."""
        whole, left = self.own.median(of), group.median(of)
        return None if not whole or left is None else 1 - left / whole

    def change(self, group: Group) -> float | None:
        """In points of top-1, against the uncompressed network."""
        whole, left = self.own.median(lambda point: point.top1), group.median(lambda point: point.top1)
        return None if whole is None or left is None else 100 * (left - whole)

    def speed(self, group: Group, runtime: str) -> Speed | None:
        own, here = self.own.latency(runtime), group.latency(runtime)
        if own is None or here is None:
            return None
        return Speed(own[0] / here[0], here[2] < own[1] or own[2] < here[1])


def middle(values: Iterable[float | None]) -> float | None:
    """The median of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def read(node: Node) -> Comparison:
    """Raises: UsageError: a field is wrong, or there is more than a page can show."""
    runtimes = tuple(one.text("name") for one in _bounded(node, "runtimes", MOST_RUNTIMES))
    points = [_point(one, runtimes) for one in _bounded(node, "points", MOST_POINTS)]
    if not points or points[0].method:
        node.refuse("points", "a list that begins with the uncompressed network, of no method")
    methods = tuple(dict.fromkeys(point.method for point in points if point.method))
    groups = _groups(points)
    compressed = [group for group in groups if group.method]
    return Comparison(
        network=node.child("network").text("name"),
        own=next(group for group in groups if not group.method),
        groups=tuple(sorted(compressed, key=lambda group: (methods.index(group.method), -_params(group)))),
        methods=methods,
        runtimes=runtimes,
        published=tuple(_published(one) for one in _bounded(node, "published", MOST_PUBLISHED)),
        predicted_in=table.text("runtime") if (table := node.maybe_child("table")) else "",
    )


def _bounded(node: Node, name: str, most: int) -> list[Node]:
    found = node.children(name)
    if len(found) > most:
        node.refuse(name, f"a list of at most {most}")
    return found


def _between(node: Node, name: str, low: float, high: float) -> float | None:
    value = node.maybe_number(name)
    if value is not None and not low <= value <= high:
        node.refuse(name, f"a number from {low:g} to {high:g}")
    return value


def _count(node: Node, name: str) -> float:
    value = _between(node, name, 0, _LARGEST)
    return node.number(name) if value is None else value


def _point(node: Node, runtimes: tuple[str, ...]) -> Point:
    top1 = node.maybe_child("top1")
    return Point(
        method=node.text("method"),
        budget=node.text("budget"),
        round=int(_count(node, "round")),
        seed=int(_count(node, "seed")),
        params=_count(node, "params"),
        macs=_between(node, "macs", 0, _LARGEST),
        before=_between(top1, "before", 0, 1) if top1 else None,
        after=_between(top1, "after", 0, 1) if top1 else None,
        predicted_ms=_between(node, "predicted_ms", 0, _LARGEST),
        coverage=_between(node, "coverage", 0, 1),
        measured=dict(_latency(one, runtimes) for one in _bounded(node, "measured", MOST_RUNTIMES)),
        node=node,
    )


def _latency(node: Node, runtimes: tuple[str, ...]) -> tuple[str, Latency]:
    runtime, failed = node.text("runtime"), node.text("failed", "")
    if runtime not in runtimes:
        node.refuse("runtime", "one of the document's runtimes")
    if failed:
        return runtime, Latency(failed, 0.0, (0.0, 0.0), False, ())
    ms, interval = node.number("latency_ms"), node.pair("interval_ms")
    if not (0 < ms <= _LARGEST and 0 < interval[0] <= interval[1] <= _LARGEST):
        node.refuse("latency_ms", "a time in ms with a positive interval")
    return runtime, Latency("", ms, interval, node.flag("stable"), tuple(node.texts("reasons")))


def _published(node: Node) -> Published:
    return Published(
        method=node.text("method"),
        network=node.text("network"),
        change=_between(node, "delta_top1", -100, 100),
        params_removed=_between(node, "params_removed", -1, 1),
        macs_removed=_between(node, "macs_removed", -1, 1),
        reference=node.text("reference", ""),
    )


def _groups(points: list[Point]) -> list[Group]:
    """Points of one budget and other rounds are other networks, and told apart where there are several."""
    found: dict[tuple[str, str, int], list[Point]] = {}
    for point in points:
        key = (point.method, point.budget, point.round) if point.method else ("", "", 0)
        found.setdefault(key, []).append(point)
    budgets = [key[:2] for key in found]
    return [
        Group(method, budget, round_ if budgets.count((method, budget)) > 1 else None, tuple(same))
        for (method, budget, round_), same in found.items()
    ]


def _params(group: Group) -> float:
    return statistics.median(point.params for point in group.points)
