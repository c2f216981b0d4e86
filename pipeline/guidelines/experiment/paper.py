"""ShuffleNetV2's Tables 1 to 4 and 8 as they are printed: which networks, and their images/s on ARM.

ARM is a Snapdragon 810, one thread, batch 1. MACs of the networks in a column of Tables 1 to 4 are equal but for whole
channels. Speeds are printed with one decimal: pairs that are equal in print are not ordered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pipeline.guidelines.finding import RULES


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        label: as the paper calls it. slug: in the names of its networks.
        settings: what `networks` builds it from, at the first column.
        images_per_s: on ARM, one for each column.
    """

    label: str
    slug: str
    settings: Mapping[str, Any]
    images_per_s: tuple[float, ...]


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Args:
        claim: what it shows; "" where it is no guideline's.
        setting: the networks in one sentence.
        columns: how they are called. scales: what the channels of the first are multiplied by.
        expected: (faster, slower) rows, of which the claim says so.
        absent: (network, why it cannot be measured here) of the paper's table.
    """

    name: str
    title: str
    claim: str
    setting: str
    columns: tuple[str, ...]
    scales: tuple[int, ...]
    rows: tuple[Row, ...]
    expected: tuple[tuple[str, str], ...] = ()
    absent: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Variant:
    """One network: a row in a column. name: what the network is called."""

    table: PaperTable
    row: Row
    column: str
    scale: int
    paper_images_per_s: float = field(compare=False)

    @property
    def name(self) -> str:
        ending = f"_{self.column}" if len(self.table.columns) > 1 else ""
        return f"{self.table.name}_{self.row.slug}{ending}"


def variants(table: PaperTable) -> list[Variant]:
    """All networks of a table, column by column."""
    return [
        Variant(table, row, column, scale, row.images_per_s[place])
        for place, (column, scale) in enumerate(zip(table.columns, table.scales, strict=True))
        for row in table.rows
    ]


def _row(label: str, slug: str, speeds: Sequence[float], **settings: Any) -> Row:
    return Row(label, slug, MappingProxyType(settings), tuple(speeds))


def _first_beats_all(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    return tuple((rows[0].label, row.label) for row in rows[1:])


_WIDTHS = ("x1", "x2", "x4")
_SCALES = (1, 2, 4)

_G1 = (
    _row("1:1", "1to1", (76.2, 21.7, 5.3), c1=32, c2=32),
    _row("1:2", "1to2", (72.9, 20.5, 5.1), c1=22, c2=44),
    _row("1:6", "1to6", (69.1, 17.9, 4.6), c1=13, c2=78),
    _row("1:12", "1to12", (57.6, 15.1, 4.4), c1=9, c2=108),
)
_G2 = (
    _row("1 group", "groups1", (40.0, 10.2, 2.3), channels=64, groups=1),
    _row("2 groups", "groups2", (35.0, 9.5, 2.2), channels=90, groups=2),
    _row("4 groups", "groups4", (32.9, 8.7, 2.1), channels=128, groups=4),
    _row("8 groups", "groups8", (27.8, 7.5, 1.8), channels=180, groups=8),
)
_G3 = (
    _row("1 fragment", "fragment1", (40.2, 10.1, 2.3), channels=64, fragments=1, parallel=False),
    _row("2 in series", "series2", (38.6, 10.1, 2.2), channels=64, fragments=2, parallel=False),
    _row("4 in series", "series4", (38.4, 10.1, 2.3), channels=64, fragments=4, parallel=False),
    _row("2 parallel", "parallel2", (33.4, 9.1, 2.2), channels=64, fragments=2, parallel=True),
    _row("4 parallel", "parallel4", (35.0, 8.4, 2.1), channels=64, fragments=4, parallel=True),
)
_BOTH, _RELU, _SHORTCUT, _NEITHER = "ReLU, shortcut", "ReLU only", "shortcut only", "neither"
_G4 = (
    _row(_BOTH, "both", (56.7, 16.9, 5.0), channels=32, relu=True, shortcut=True),
    _row(_RELU, "relu", (61.9, 18.8, 5.2), channels=32, relu=True, shortcut=False),
    _row(_SHORTCUT, "shortcut", (57.3, 18.2, 5.1), channels=32, relu=False, shortcut=True),
    _row(_NEITHER, "neither", (66.3, 20.2, 5.4), channels=32, relu=False, shortcut=False),
)
_TABLE_8 = (
    _row("ShuffleNet v2 0.5x", "shufflenet_v2_0.5x", (57.0,), family="shufflenet_v2", width_mult=0.5),
    _row("ShuffleNet v2 1x", "shufflenet_v2_1x", (24.4,), family="shufflenet_v2", width_mult=1.0),
    _row("ShuffleNet v2 1.5x", "shufflenet_v2_1.5x", (11.8,), family="shufflenet_v2", width_mult=1.5),
    _row("ShuffleNet v2 2x", "shufflenet_v2_2x", (6.7,), family="shufflenet_v2", width_mult=2.0),
    _row("ShuffleNet v1 0.5x, g=3", "shufflenet_v1_0.5x", (56.8,), family="shufflenet_v1_g3", width_mult=0.5),
    _row("ShuffleNet v1 1x, g=3", "shufflenet_v1_1x", (21.8,), family="shufflenet_v1_g3", width_mult=1.0),
    _row("ShuffleNet v1 1.5x, g=3", "shufflenet_v1_1.5x", (10.3,), family="shufflenet_v1_g3", width_mult=1.5),
    _row("ShuffleNet v1 2x, g=3", "shufflenet_v1_2x", (6.4,), family="shufflenet_v1_g3", width_mult=2.0),
    _row("MobileNet v1 0.25", "mobilenet_v1_0.25", (36.4,), family="mobilenet_v1", width_mult=0.25),
    _row("MobileNet v1 0.5", "mobilenet_v1_0.5", (16.5,), family="mobilenet_v1", width_mult=0.5),
    _row("MobileNet v1 0.75", "mobilenet_v1_0.75", (10.6,), family="mobilenet_v1", width_mult=0.75),
    _row("MobileNet v1 1.0", "mobilenet_v1_1.0", (6.5,), family="mobilenet_v1", width_mult=1.0),
    _row("MobileNet v2 1.0", "mobilenet_v2_1.0", (8.9,), family="mobilenet_v2", width_mult=1.0),
    _row("MobileNet v2 1.4", "mobilenet_v2_1.4", (5.4,), family="mobilenet_v2", width_mult=1.4),
)
_NOT_IN_ZOO = "not in the zoo"
_OWN_WIDTHS = "the paper's MACs are not those of this width rounded to whole eights, and its own widths are not printed"
_NO_SPEED = "the paper has no speed of it"
_ABSENT_8 = (
    ("ShuffleNet v2 2x, SE", _NOT_IN_ZOO),
    ("MobileNet v2 0.15", _OWN_WIDTHS),
    ("MobileNet v2 0.6", _OWN_WIDTHS),
    ("IGCV2 1.0", _NOT_IN_ZOO),
    ("NASNet-A", _NOT_IN_ZOO),
    ("PNASNet-5", _NOT_IN_ZOO),
    ("CondenseNet G=C=8", _NO_SPEED),
    ("CondenseNet G=C=4", _NO_SPEED),
)

TABLES: Mapping[str, PaperTable] = MappingProxyType(
    {
        table.name: table
        for table in (
            PaperTable(
                "g1", "Table 1", RULES["g1"],
                "Ten blocks of two 1x1 convolutions, c1 to c2 and back, at 56x56.",
                _WIDTHS, _SCALES, _G1, _first_beats_all(_G1),
            ),
            PaperTable(
                "g2", "Table 2", RULES["g2"],
                "Ten 1x1 group convolutions at 56x56.",
                _WIDTHS, _SCALES, _G2, _first_beats_all(_G2),
            ),
            PaperTable(
                "g3", "Table 3", RULES["g3"],
                "Ten blocks of one, two or four 1x1 convolutions behind or beside each other at 56x56.",
                _WIDTHS, _SCALES, _G3, _first_beats_all(_G3),
            ),
            PaperTable(
                "g4", "Table 4", RULES["g4"],
                "Ten bottlenecks of ResNet, 1x1, 3x3, 1x1, with and without ReLU and shortcut at 56x56.",
                _WIDTHS, _SCALES, _G4,
                ((_RELU, _BOTH), (_SHORTCUT, _BOTH), (_NEITHER, _RELU), (_NEITHER, _SHORTCUT), (_NEITHER, _BOTH)),
            ),
            PaperTable(
                "table8", "Table 8", "", "Whole networks at 224x224.", ("224",), (1,), _TABLE_8, absent=_ABSENT_8
            ),
        )
    }
)  # fmt: skip
