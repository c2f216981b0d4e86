"""A phone prepared for a run, and left as it was: also after an exception, Ctrl-C, a lost link, a killed host, a restart."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from devices.adb.errors import clean
from devices.conditions.ask import ask
from devices.conditions.journal import NAME, format_journal, parse_journal
from devices.conditions.knobs import KNOB_OF, KNOBS, MAX_DETAIL, Change, Knob
from devices.conditions.scripts import READ, SET, UNDO
from devices.conditions.snapshot import boot_id_of
from devices.errors import DeviceError, DeviceLost
from devices.transport import Transport

LIMIT_S = 60.0
UNDO_LIMIT_S = 30.0
OnNote = Callable[[str], None]


@contextlib.contextmanager
def prepared(transport: Transport, on_note: OnNote, *, touch: bool = True) -> Iterator[list[dict[str, str]]]:
    """Sets all knobs of a phone for the block and undoes them after it; on the host nothing is done.

    What an earlier run left is undone first. Before anything is changed, a journal of it lies on the phone; it goes when
    all is undone. A value that the user changed in the meantime is left alone. Whatever cannot be set is no failure.

    Args:
        on_note: told of what the user should know, a line each.
        touch: False sets nothing; what an earlier run left is undone all the same.

    Yields: for each knob its name, its state ("set", "as wanted", "not available", "not touched") and details.

    Raises: DeviceLost: before the block. After it, a phone that is away is left to the next run.
    """
    if transport.describe().kind == "host":
        yield []
        return
    found = _undo_earlier(transport, on_note)
    if found is None or not touch:
        yield [_state(knob, "not touched") for knob in KNOBS]
        return
    changes = _changes(found)
    try:
        if changes and not _write(transport, found, changes, on_note):
            changes = []
            yield [_state(knob, "not touched") for knob in KNOBS]
            return
        words = [word for one in changes for word in (one.key, one.new)]
        said = ask(transport, SET, words, limit_s=LIMIT_S) if changes else {}
        yield [_state_of(knob, found, changes, said) for knob in KNOBS]
    finally:
        if changes:
            with _unhurried():
                _undo_quietly(transport, changes, on_note)


def _undo_earlier(transport: Transport, on_note: OnNote) -> Mapping[str, str] | None:
    """What the phone has now, when nothing of an earlier run is left on it; None: that could not be undone."""
    found = _read(transport)
    if "journal" not in found:
        return found
    try:
        left = parse_journal(found["journal"])
        changes = left.still_there(boot_id_of(found.get("boot_id", "")))
    except ValueError as error:
        on_note(f"threw away a damaged note of an earlier run on {transport.name}: {clean(str(error), MAX_DETAIL)}")
        changes = []
    done = _undo(transport, changes)
    if changes and done:
        on_note(f"undid what an earlier run left on {transport.name}: {_names(changes)}")
    if not done:
        on_note(f"could not undo what an earlier run left on {transport.name}; it is not touched now")
        return None
    return _read(transport)


def _read(transport: Transport) -> dict[str, str]:
    return ask(transport, READ, [_journal(transport), *KNOB_OF], limit_s=LIMIT_S)


def _journal(transport: Transport) -> str:
    return f"{transport.workdir}/{NAME}"


def _changes(found: Mapping[str, str]) -> list[Change]:
    """What to set, all or nothing for each knob; a value that could not be put back keeps its knob as it is."""
    changes = []
    for knob in KNOBS:
        olds = {key: found.get(key, "") for key in knob.keys}
        if all(knob.valid(old) for old in olds.values()):
            wanted = {key: knob.wanted(old) for key, old in olds.items()}
            changes += [Change(key, olds[key], new) for key, new in wanted.items() if new is not None]
    return changes


def _write(transport: Transport, found: Mapping[str, str], changes: Sequence[Change], on_note: OnNote) -> bool:
    """Puts the journal on the phone. False: it cannot be written, so nothing may be changed. Raises: DeviceLost."""
    with tempfile.TemporaryDirectory(prefix="handset-") as folder:
        local = Path(folder) / NAME
        local.write_text(format_journal(boot_id_of(found.get("boot_id", "")), changes))
        try:
            transport.push(local, _journal(transport))
        except DeviceLost:
            raise
        except DeviceError as error:
            on_note(f"{transport.name} is not prepared, because nothing could be written on it to undo it by: {error}")
            return False
    return True


def _state(knob: Knob, state: str, details: str = "") -> dict[str, str]:
    return {"name": knob.name, "state": state, "details": clean(details, MAX_DETAIL)}


def _state_of(
    knob: Knob, found: Mapping[str, str], changes: Sequence[Change], said: Mapping[str, str]
) -> dict[str, str]:
    """What became of a knob. said: the answers to SET."""
    own = [one for one in changes if one.key in knob.keys]
    refused = [one for one in own if not knob.took(one, said.get(f"{one.key} said", ""), said.get(one.key, ""))]
    if refused:
        return _state(knob, "not available", said.get(f"{refused[0].key} said", "").partition("\n")[0])
    if own:
        return _state(knob, "set", ", ".join(f"{one.key} {one.new} (was {one.old})" for one in own))
    for key in knob.keys:
        if not knob.valid(value := found.get(key, "")):
            return _state(knob, "not available", value or "the phone does not say its value")
    return _state(knob, "as wanted", ", ".join(f"{key} {found[key]}" for key in knob.keys))


def _undo(transport: Transport, changes: Sequence[Change]) -> bool:
    """Whether all is undone and the journal gone. Raises: DeviceLost."""
    arguments = [_journal(transport), *(word for one in changes for word in (one.key, one.old, one.new))]
    return "removed" in ask(transport, UNDO, arguments, limit_s=UNDO_LIMIT_S)


def _undo_quietly(transport: Transport, changes: Sequence[Change], on_note: OnNote) -> None:
    why = "it does not answer as it should"
    try:
        if _undo(transport, changes):
            return
    except DeviceError as error:
        why = str(error)
    on_note(f"{transport.name} keeps for now what was set on it ({_names(changes)}): {why}; the next run undoes it")


def _names(changes: Sequence[Change]) -> str:
    return ", ".join(dict.fromkeys(KNOB_OF[one.key].name for one in changes))


@contextlib.contextmanager
def _unhurried() -> Iterator[None]:
    """Ctrl-C and what ends a process wait until the block is done, and count then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in ours:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
