"""The context of a run: the machine and its state, networks, runtimes, files, tables, and where the time went."""

from __future__ import annotations

import re

from pipeline.report.facts import cases, value_range
from pipeline.report.text import count, duration, number, percent, plural, size
from pipeline.report.views import Bench

SAFE_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
SHORT_STAGE = 0.01
"""Stages below this share of the whole run are shown as one."""


def machine(bench: Bench) -> list[tuple[str, str]]:
    """(what, value) about the device, its state and the run."""
    rows = []
    for key, text in bench.device.items():
        if key == "memory_bytes" and bench.memory_bytes is not None:
            rows.append(("memory", size(bench.memory_bytes)))
        else:
            rows.append((key.replace("_", " "), text))
    rows += _state(bench)
    rows += [("run", bench.run), ("created", bench.created), ("handset", bench.handset), ("command", bench.command)]
    rows += [(f"bundle {kind}", text) for kind, text in bench.bundles]
    if bench.conditions:
        rows += [("restarted", plural(bench.conditions.restarts, "time"))] if bench.conditions.restarts else []
        rows += bench.conditions.knobs
    rows += [(f"runner {key}", text[:16] if key == "sha256" else text) for key, text in bench.runner.items()]
    return [*rows, ("canary", bench.canary_kind or "none")]


def _state(bench: Bench) -> list[tuple[str, str]]:
    """Load, clock and temperature: before and after where both were read, with what was read in between."""
    measured = [case.measured for case in cases(bench.profiles)]
    around = measured[0].around if measured else []  # the device's, so the same for all profiles
    clocks = [khz for one in around for khz in one.clocks_khz]
    clocks += [end.clock_khz for m in measured for end in m.block_ends if end.clock_khz is not None]
    return [
        ("load", before_and_after([one.load1 for one in around], "")),
        ("temperature", before_and_after([one.temperature_c for one in around], "°C")),
        ("clock", value_range(clocks, "GHz", 1e-6)),
    ]


def before_and_after(values: list[float | None], unit: str) -> str:
    """ "0.40 before, 0.90 after measuring", or "not readable"."""
    names = {0: "before", len(values) - 1: "after"} if len(values) > 1 else {}
    seen = [f"{value:.2f} {unit} {names.get(i, '')}".split() for i, value in enumerate(values) if value is not None]
    return f"{', '.join(' '.join(words) for words in seen)} measuring" if seen else "not readable"


def settings(bench: Bench) -> list[tuple[str, str]]:
    rows = []
    for key, text in bench.settings.items():
        mask = key == "cpu_mask" and text.isascii() and text.isdigit()
        rows.append((key.replace("_", " "), hex(int(text)) if mask else text))
    return rows


def tables(bench: Bench) -> list[dict[str, str]]:
    """The latency tables beside the page; only a plain file name becomes a link."""
    return [
        {"runtime": runtime, "file": file, "href": file if SAFE_FILE.fullmatch(file) else ""}
        for runtime, file in bench.tables.items()
    ]


def stages(bench: Bench) -> list[tuple[str, str, str]]:
    """(stage, seconds, share) of the run, longest first, short ones as one, the whole last; empty if not known."""
    whole = bench.stages_s.get("all", 0.0)
    if whole <= 0:
        return []
    named = sorted(((s, text) for text, s in bench.stages_s.items() if text != "all"), reverse=True)
    rows = [(text, s) for s, text in named if s >= SHORT_STAGE * whole]
    short = [s for s, _ in named if s < SHORT_STAGE * whole]
    rows += [(plural(len(short), "shorter stage"), sum(short))] if short else []
    rest = whole - sum(s for s, _ in named)
    rows += [("between the stages", rest)] if rest > SHORT_STAGE * whole else []
    return [(text, number(s), percent(s / whole)) for text, s in [*rows, ("the whole run", whole)]]


def networks(bench: Bench) -> list[dict[str, str]]:
    return [
        {
            "name": network.name,
            "source": network.source,
            "input": "×".join(f"{n:.0f}" for n in network.input_shape),
            "params": count(network.params) if network.params is not None else "unknown",
            "macs": count(network.macs) if network.macs is not None else "unknown",
        }
        for network in bench.networks
    ]


def runtime_rows(bench: Bench) -> list[dict[str, str]]:
    """The different ways in which networks were run, each once; a profile that failed early may not know its own."""
    rows = [
        {
            "runtime": profile.runtime,
            "bundle": profile.bundle,
            "version": profile.runtime_version,
            "library": profile.runtime_sha256,
            "delegate": profile.delegate or "none",
            "threads": f"{profile.threads:.0f}" if profile.threads is not None else "",
            "mask": profile.cpu_mask,
        }
        for profile in bench.profiles
        if profile.runtime_version or not profile.failed
    ]
    return [row for index, row in enumerate(rows) if row not in rows[:index]]


def files(bench: Bench) -> list[dict[str, str]]:
    """The file of each profile, also of a failed one, and what it cost to hold; an unknown value is an empty text."""
    rows = []
    for profile in bench.profiles:
        m, artifact = profile.measured, profile.artifact
        rows.append(
            {
                "network": profile.network,
                "label": profile.label,
                "file": artifact.file if artifact else "",
                "converter": artifact.converter if artifact else "",
                "sha256": artifact.sha256 if artifact else "",
                "bytes": size(artifact.bytes) if artifact and artifact.bytes is not None else "",
                "load": duration(m.model_load_ms) if m and m.model_load_ms is not None else "",
                "memory": size(m.peak_memory_bytes) if m and m.peak_memory_bytes is not None else "",
            }
        )
    return rows
