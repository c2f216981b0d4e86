"""The result of an experiment as one JSON document, schema version 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.guidelines.experiment.orderings import FAILS, HOLDS, Compared, Judgement, Speed, compare, judge
from pipeline.guidelines.experiment.paper import TABLES, PaperTable, variants
from pipeline.report.text import percent, plural
from pipeline.version import VERSION

SCHEMA_VERSION = 1
KIND = "guidelines experiment"

Document = dict[str, Any]


def experiment_document(tables: Sequence[str], bench: Mapping[str, Any], command: str) -> Document:
    """From the names of the tables and the result document of the bench that measured their networks."""
    runtimes = list(dict.fromkeys(profile["runtime"] for profile in bench["profiles"]))
    networks = {network["name"]: network for network in bench["networks"]}
    profiles = {(profile["network"], profile["runtime"]): profile for profile in bench["profiles"]}
    found = [_table(TABLES[name], runtimes, networks, profiles) for name in tables]
    cells = [
        cell for table in found for column in table["columns"] for row in column["rows"] for cell in row["measured"]
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "handset": VERSION,
        "run": bench["run"],
        "created": bench["created"],
        "command": command,
        "device": bench["device"],
        "settings": bench["settings"],
        "runtimes": [
            {"name": name, "version": next(p["runtime_version"] for p in bench["profiles"] if p["runtime"] == name)}
            for name in runtimes
        ],
        "tables": found,
        "counts": {
            "measured": sum(not cell["failed"] for cell in cells),
            "failed": sum(bool(cell["failed"]) for cell in cells),
            "unstable": sum(not cell["failed"] and not cell["stable"] for cell in cells),
        },
        "notes": list(bench["notes"]),
    }


def _table(
    table: PaperTable,
    runtimes: Sequence[str],
    networks: Mapping[str, Mapping[str, Any]],
    profiles: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Document:
    columns = []
    for name in table.columns:
        rows = [
            {
                "label": one.row.label,
                "network": one.name,
                "input_shape": networks[one.name]["input_shape"],
                "macs": networks[one.name]["macs"],
                "paper_images_per_s": one.paper_images_per_s,
                "measured": [_cell(profiles[one.name, runtime]) for runtime in runtimes],
            }
            for one in variants(table)
            if one.column == name
        ]
        columns.append({"label": name, "rows": rows, "runtimes": [_orderings(table, rows, r) for r in runtimes]})
    document = {
        "name": table.name,
        "title": table.title,
        "claim": table.claim,
        "setting": table.setting,
        "columns": columns,
        "absent": [{"network": network, "why": why} for network, why in table.absent],
    }
    return document | {"sentences": [_sentence(document, runtime) for runtime in runtimes]}


def _cell(profile: Mapping[str, Any]) -> Document:
    """One network in one runtime: images/s are 1000 / ms, so that the interval's ends change places."""
    if profile["failed"] is not None:
        return {"runtime": profile["runtime"], "failed": profile["failed"]}
    best, verdict = profile["latency_ms"]["corrected"], profile["verdict"]
    low_ms, high_ms = best["interval"]
    if low_ms <= 0:
        why = f"too unstable to tell a speed: {best['median']:.3g} ms, of which the interval begins at 0; try: more --launches"
        return {"runtime": profile["runtime"], "failed": why}
    return {
        "runtime": profile["runtime"],
        "failed": "",
        "latency_ms": best["median"],
        "interval_ms": [low_ms, high_ms],
        "images_per_s": 1000 / best["median"],
        "interval": [1000 / high_ms, 1000 / low_ms],
        "stable": verdict["stable"],
        "reasons": list(verdict["reasons"]),
    }


def _orderings(table: PaperTable, rows: Sequence[Document], runtime: str) -> Document:
    """What a column says in one runtime."""
    speeds = [_speed(row, cell) for row in rows for cell in row["measured"] if cell["runtime"] == runtime]
    judged = judge(speeds, table.expected) if table.expected else None
    return {
        "runtime": runtime,
        "compared": _compared(compare(speeds), equal_macs=bool(table.expected)),
        "guideline": None if judged is None else _judgement(judged),
    }


def _speed(row: Document, cell: Document) -> Speed:
    measured = () if cell["failed"] else (cell["images_per_s"], tuple(cell["interval"]))
    return Speed(row["label"], row["macs"], row["paper_images_per_s"], *measured)


def _compared(found: Compared, *, equal_macs: bool) -> Document:
    """by_macs is of networks that are meant to have equal MACs: None elsewhere."""
    return {
        "same": found.same,
        "open": found.open,
        "reversals": [
            dataclasses.asdict(one) | ({} if equal_macs else {"fewer_macs": None, "by_macs": None})
            for one in found.reversals
        ],
    }


def _judgement(judged: Judgement) -> Document:
    return {
        "verdict": judged.verdict,
        "confirmed": _pairs(judged.confirmed),
        "against": _pairs(judged.against),
        "open": _pairs(judged.open),
    }


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[Document]:
    return [{"faster": faster, "slower": slower} for faster, slower in pairs]


def _sentence(table: Document, runtime: str) -> Document:
    """What a table says in one runtime, for people."""
    own = [
        (column["label"], one) for column in table["columns"] for one in column["runtimes"] if one["runtime"] == runtime
    ]
    reversed_pairs = [pair for _, one in own for pair in one["compared"]["reversals"]]
    same = sum(one["compared"]["same"] for _, one in own)
    pairs = same + len(reversed_pairs) + sum(one["compared"]["open"] for _, one in own)
    counted = f"{same} of {plural(pairs, 'pair')} ordered as in the paper, {len(reversed_pairs)} the other way round"
    if not table["claim"]:
        return {"runtime": runtime, "text": f"{table['title']} in {runtime}: {counted}"}
    by_verdict: dict[str, list[str]] = {}
    for label, one in own:
        by_verdict.setdefault(one["guideline"]["verdict"], []).append(label)
    words = {HOLDS: "holds at", FAILS: "does not hold at"}
    told = "; ".join(f"{words.get(verdict, 'is open at')} {', '.join(at)}" for verdict, at in by_verdict.items())
    return {"runtime": runtime, "text": f"{table['name'].upper()} in {runtime} {told}: {counted}"}


def reversal_text(pair: Mapping[str, Any]) -> str:
    """As in "1:2 over 1:1: 3.1 % faster, in the paper 4.3 % slower"; where rounded channels explain it, that too."""
    here, paper = percent(pair["here"]), percent(pair["paper"])
    text = f"{pair['faster']} over {pair['slower']}: {here} faster, in the paper {paper} slower"
    return f"{text}; with {percent(pair['fewer_macs'])} fewer MACs" if pair["by_macs"] else text
