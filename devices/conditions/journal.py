"""The journal of a prepared phone: a small JSON file on it that says what to undo, whoever comes next.

It lies on the phone itself, so that a run that was killed, or lost its link, is undone by the next one from any host.
What is read back is not trusted: a phone may hold anything under that name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from devices.conditions.knobs import KNOB_OF, Change
from devices.conditions.snapshot import boot_id_of

SCHEMA_VERSION = 1  # 1: entries, boot_id
NAME = "conditions.json"
MAX_BYTES = 8192


@dataclass(frozen=True)
class Journal:
    """boot_id: of the phone when the changes were made; None where it does not say."""

    boot_id: str | None
    changes: tuple[Change, ...]

    def still_there(self, boot_id: str | None) -> list[Change]:
        """The changes that outlived a restart, if there was one between."""
        restarted = None not in (boot_id, self.boot_id) and boot_id != self.boot_id
        return [one for one in self.changes if not restarted or KNOB_OF[one.key].survives_restart]


def format_journal(boot_id: str | None, changes: Sequence[Change]) -> str:
    entries = {one.key: {"old": one.old, "new": one.new} for one in changes}
    return json.dumps({"schema_version": SCHEMA_VERSION, "boot_id": boot_id, "entries": entries}, indent=1) + "\n"


def parse_journal(text: str) -> Journal:
    """Raises: ValueError: it is not what `format_journal` gives, which a phone may have made up."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES} bytes")
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(f"not a journal of schema version {SCHEMA_VERSION}")
    boot_id, entries = document.get("boot_id"), document.get("entries")
    if boot_id is not None and (not isinstance(boot_id, str) or boot_id_of(boot_id) != boot_id):
        raise ValueError("a boot id that is none")
    if not isinstance(entries, dict):
        raise ValueError("no entries")
    return Journal(boot_id, tuple(_change(key, entry) for key, entry in entries.items()))


def _change(key: str, entry: object) -> Change:
    knob = KNOB_OF.get(key)
    if knob is None or not isinstance(entry, dict):
        raise ValueError("an entry that is no knob's")
    old, new = entry.get("old"), entry.get("new")
    if not isinstance(old, str) or not isinstance(new, str) or not knob.valid(old) or not knob.valid(new):
        raise ValueError(f"a value that {key} cannot have")
    return Change(key, old, new)
