"""What a person sees while stages run: on stderr, a live line where it is a terminal, nothing but notices elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Advance = Callable[[float, str], None]
Step = Callable[[str], None]
OnWait = Callable[[str, float], None]

REMIND_S = 30.0
"""How often somebody who is no terminal is told that we still wait."""


def printable(text: str) -> str:
    """The text without what could steer a terminal (a path may hold anything), in characters that stdout has."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "".join(c if c.isprintable() else "?" for c in text).encode(encoding, "replace").decode(encoding)


class Console:
    """Args: quiet: no progress even on a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.live = sys.stderr.isatty() and not quiet
        self.run_folder: Path | None = None
        self.seconds: dict[str, float] = {}
        self._describe: Callable[[str], None] | None = None  # of the bar that is shown: two live lines would fight

    def say(self, text: str) -> None:
        """One line that matters, such as that the device is held by somebody else."""
        print(f"handset: {printable(text)}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def stage(self, text: str) -> Iterator[Step]:
        """A spinner with the text while the block runs; a line with its seconds afterwards where that were over one.

        The block gets a function that tells which step of the stage it is at. The seconds are kept in `seconds`, also
        where nothing is shown.
        """
        with self._timed(text) as begun, self._spinner(printable(text), begun) as step:
            yield step

    @contextlib.contextmanager
    def _timed(self, text: str) -> Iterator[float]:
        begun = time.monotonic()
        try:
            yield begun
        finally:
            self.seconds[text] = self.seconds.get(text, 0.0) + time.monotonic() - begun

    @contextlib.contextmanager
    def waiting(self) -> Iterator[OnWait]:
        """For a wait whose reason and remaining seconds change: a countdown on a terminal, a line now and then elsewhere."""
        if self._describe is not None:
            describe = self._describe
            yield lambda reason, seconds: describe(f"waiting {seconds:.0f} s: {reason}")
            return
        if self.live:
            with self._spinner("waiting", time.monotonic()) as step:
                yield lambda reason, seconds: step(f"{reason}; {seconds:.0f} s left")
            return
        told = time.monotonic() - REMIND_S

        def remind(reason: str, seconds: float) -> None:
            nonlocal told
            if time.monotonic() - told >= REMIND_S:
                told = time.monotonic()
                self.say(f"waiting up to {seconds:.0f} s: {reason}")

        yield remind

    @contextlib.contextmanager
    def _spinner(self, text: str, begun: float) -> Iterator[Step]:
        if not self.live:
            yield lambda step: None
            return
        from rich.console import Console as RichConsole
        from rich.text import Text

        console = RichConsole(stderr=True)
        with console.status(Text(text)) as status:  # a model's name is no markup
            yield lambda step: status.update(Text(f"{text}: {printable(step)}"))
        seconds = time.monotonic() - begun
        if seconds > 1:
            console.print(Text.assemble("  ", text, " ", (f"{seconds:.1f} s", "dim")))

    @contextlib.contextmanager
    def progress(self, text: str, total_s: float) -> Iterator[Advance]:
        """A bar over seconds of timed inference. `advance(seconds, case)`; the bar grows where more are needed.

        It is a stage too.
        """
        with self._timed(text), self._bar(text, total_s) as advance:
            yield advance

    @contextlib.contextmanager
    def _bar(self, text: str, total_s: float) -> Iterator[Advance]:
        if not self.live:
            yield lambda seconds, case: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        # a case's name is no markup
        columns = [TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=RichConsole(stderr=True)) as bar:
            task = bar.add_task(text, total=max(total_s, 0.1))

            def advance(seconds: float, case: str) -> None:
                state = bar.tasks[0]
                if state.total is not None and state.completed + seconds > state.total:
                    bar.update(task, total=state.completed + seconds)
                bar.update(task, advance=seconds, description=f"{text} {printable(case)[:40]}")

            self._describe = lambda words: bar.update(task, description=printable(words)[:60])
            try:
                yield advance
            finally:
                self._describe = None
