"""The page: one self-contained HTML file without scripts, fonts or requests, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.errors import StorageError
from pipeline.report import checks, conditions, context, counts, facts, kernel_sections, sections, waterfall
from pipeline.report.document import read
from pipeline.report.kinds import KINDS
from pipeline.report.ranks import ranks
from pipeline.report.text import shorten
from pipeline.report.views import Bench

NAME_CHARACTERS = 40


def name(text: str, limit: int = NAME_CHARACTERS) -> Markup:
    """An untrusted name: isolated from the direction of its surroundings, cut, and whole in its title."""
    if len(text) <= limit:
        return Markup("<bdi>{}</bdi>").format(text)
    return Markup('<bdi title="{}">{}</bdi>').format(text, shorten(text, limit))


def digest(sha256: str) -> Markup:
    if not sha256:
        return Markup("")
    return Markup('<code title="{}">{}</code>').format(sha256, sha256[:10])


def environment() -> Environment:
    """Autoescape for every template whatever its name; an unknown variable is an error."""
    made = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(name=name, digest=digest)
    return made


def page(bench: Bench) -> str:
    """The whole page as text."""
    rows, axis, log = sections.latency(bench)
    ranked, runtimes = ranks(bench), sections.runtimes(bench)
    return environment().get_template("page.html.j2").render(
        bench=bench,
        headline=facts.headline(bench),
        headline_whole=facts.headline(bench, limit=10_000),
        latency=rows,
        latency_axis=axis,
        latency_log=log,
        runtimes=runtimes,
        counts=counts.plots(ranked, runtimes),
        count_rows=counts.rows(ranked),
        turned=[(one.label, [counts.pair_text(*pair) for pair in one.worst]) for one in ranked if one.worst],
        pairs=sections.pairs(bench),
        distributions=sections.distributions(bench),
        falls=kernel_sections.falls(bench),
        types=kernel_sections.types(bench),
        versus=kernel_sections.versus(bench),
        numerics=checks.numerics(bench),
        mismatches=facts.mismatches(bench),
        meanwhile=conditions.meanwhile(bench),
        stability=checks.stability(bench),
        disturbed_over=bench.disturbed_over,
        parity=checks.parity(bench),
        machine=context.machine(bench),
        settings=context.settings(bench),
        networks=context.networks(bench),
        bundles=any(profile.bundle for profile in bench.profiles),
        runtime_rows=context.runtime_rows(bench),
        files=context.files(bench),
        tables=context.tables(bench),
        stages=context.stages(bench),
        method=checks.method(bench),
        differences=checks.differences(bench),
        without_kernels=kernel_sections.without(bench),
        failed=[profile for profile in bench.profiles if profile.failed],
        next=facts.next_commands(bench),
        kinds=KINDS,
        fold_below=waterfall.FOLD_BELOW,
    )  # fmt: skip


def render(result: Mapping[str, object], path: str | os.PathLike[str]) -> Path:
    """Writes the page of a result document to `path` and gives that path back.

    Raises:
        UsageError: the document is no bench result of a schema that is known here, or a field in it is wrong.
        StorageError: the page cannot be written; then nothing is left behind, and an older page stays as it was.
    """
    text, target = page(read(result)), Path(path)
    try:
        _write(text, target)
    except OSError as error:
        raise StorageError(
            f"the page cannot be written to {target}: {error.strerror or error}", try_="another folder"
        ) from error
    return target


def _write(text: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".page-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
