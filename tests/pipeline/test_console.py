"""What a person sees: a live line on a terminal, nothing but notices elsewhere, and seconds in any case."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

import pipeline.console
from pipeline.console import Console


class Clock:
    """Stands for the module `time`: each call is a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pipeline.console, "time", clock)
    return clock


def test_nothing_is_written_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    assert not console.live
    with console.stage("exporting"), console.progress("measuring", 10) as advance:
        advance(1.0, "net")
    assert capsys.readouterr() == ("", "")


def test_a_notice_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).say("the device is held")
    assert capsys.readouterr() == ("", "handset: the device is held\n")


def test_the_seconds_of_a_stage_are_kept_and_add_up(clock: Clock) -> None:
    console = Console()
    for _ in range(2):
        with console.stage("exporting"):
            clock.now += 10
    with pytest.raises(ValueError, match="no"), console.stage("measuring"):
        raise ValueError("no")
    assert console.seconds == {"exporting": 22, "measuring": 1}


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on stderr says that it is a terminal (pytest changes it between a fixture and its test)."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("text", ["exporting net", "preparing [bold]net", "preparing [/]"])
def test_on_a_terminal_a_long_stage_leaves_a_line(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    on_terminal(monkeypatch)
    console = Console()
    assert console.live
    with console.stage(text):
        clock.now += 3
    out, err = capsys.readouterr()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)
    assert out == "" and plain.rstrip("\r\n").endswith(f"  {text} 4.0 s")
    assert console.seconds == {text: 5}


def test_a_short_stage_leaves_no_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal(monkeypatch)
    with Console().stage("exporting"):
        pass
    assert " s" not in capsys.readouterr().err


def test_quiet_is_quiet_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal(monkeypatch)
    console = Console(quiet=True)
    with console.stage("exporting"), console.progress("measuring", 10) as advance:
        advance(1.0, "net")
    assert capsys.readouterr() == ("", "")


def test_a_bar_grows_where_more_is_done_than_was_planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    import rich.progress

    bars: list[Any] = []
    make = rich.progress.Progress

    def remember(*columns: Any, **settings: Any) -> Any:
        bars.append(make(*columns, **settings))
        return bars[-1]

    monkeypatch.setattr(rich.progress, "Progress", remember)
    with Console().progress("measuring", 2.0) as advance:
        advance(1.5, "net.litert")
        assert (bars[0].tasks[0].completed, bars[0].tasks[0].total) == (1.5, 2)
        advance(1.5, "net.litert")
        assert (bars[0].tasks[0].completed, bars[0].tasks[0].total) == (3, 3)
    out, err = capsys.readouterr()
    assert out == "" and "measuring net.litert" in err


def test_a_bar_is_a_stage_and_takes_any_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal(monkeypatch)
    console = Console()
    with console.progress("measuring", 2.0) as advance:
        advance(1.5, "net[/] [bold]\x1b]0;t\x07")
    assert "net[/] [bold]?]0;t?" in capsys.readouterr().err
    assert console.seconds["measuring"] > 0


def test_a_wait_within_a_bar_is_told_in_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch)
    console = Console()
    with console.progress("measuring", 2.0) as advance:
        advance(1.0, "net")
        with console.waiting() as on_wait:
            on_wait("skin 50.0 °C", 600.0)
    err = capsys.readouterr().err
    assert "waiting 600 s: skin 50.0 °C" in err and "⠋" not in err
    with console.waiting() as on_wait:
        on_wait("skin 50.0 °C", 600.0)
    assert "600 s left" in capsys.readouterr().err, "a spinner of its own where there is no bar"
