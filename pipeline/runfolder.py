"""One run's folder under `reports/`: its plan, its model files, its launches and its result. It never holds half a file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.artifact import Exported, Parity, sha256_file
from pipeline.errors import StorageError, UsageError

SCHEMA_VERSION = 1
PLAN = "plan.json"
RESULT = "result.json"
PAGE = "index.html"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes whole or not at all.

    Raises: StorageError: the disk is full, or the folder cannot be written.
    """
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    part = ""
    if path.exists() and not (path.is_file() or path.is_dir()):
        # a rename would put a plain file in the place of /dev/null
        raise StorageError(f"cannot write {path}: it is no plain file", try_="the path of a file")
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", try_="free some space, or another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def check_writable(option: str, path: Path | None) -> None:
    """Fails before minutes of measuring, not after. Raises: StorageError: a file could not be written there."""
    if path is None:
        return
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)) or (path.exists() and not path.is_file()):
        what = f"cannot write {path}"
        raise StorageError(what, try_=f"{option} with a path in a folder that is there and writable")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """`plan` is what was asked: models, runtimes, device, settings; a resumed run reads it again."""

    path: Path
    plan: Mapping[str, Any]

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def id(self) -> str:
        """What the run is called on a device, whatever its folder is called here: safe as a file name."""
        known = str(self.plan.get("id", ""))
        if re.fullmatch(r"[0-9a-f]{16}", known):
            return known
        return hashlib.sha256(str(self.plan.get("created")).encode()).hexdigest()[:16]

    def remember(self, exported: Exported) -> None:
        """Notes an exported file, so that a resumed run need not export it again."""
        document = dataclasses.asdict(exported) | {"path": os.path.relpath(exported.path, self.path)}
        write_json(self.artifacts / f"{exported.network}.{exported.format}.json", document)

    def recall(self, network: str, format: str) -> Exported | None:
        """The file that an earlier start of this run exported, where it is still what it was."""
        try:
            document = json.loads((self.artifacts / f"{network}.{format}.json").read_text("utf-8"))
            parity = document.pop("parity")
            path = self.path / document.pop("path")
            document |= {key: tuple(document[key]) for key in ("input_shape", "output_shape")}
            exported = Exported(path=path, parity=Parity(**parity) if parity else None, **document)
            return exported if sha256_file(path) == exported.sha256 else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def create(reports: Path, device: str, plan: Mapping[str, Any], what: str = "bench") -> RunFolder:
    """A new folder `<date>-<time>-<device>-<what>` with its plan.

    Raises: StorageError: it cannot be made.
    """
    created = datetime.now(UTC)
    stem = f"{created:%Y-%m-%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._-]', '_', device)}-{what}"
    try:
        reports.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100):
            path = reports / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                break
        (path / "artifacts").mkdir()
    except OSError as error:
        raise StorageError(f"cannot make a run folder in {reports}: {error.strerror}", try_="--reports DIR") from error
    created_text = f"{created:%Y-%m-%dT%H:%M:%SZ}"
    plan = {"schema_version": SCHEMA_VERSION, "id": secrets.token_hex(8), "created": created_text, **plan}
    try:
        write_json(path / PLAN, plan)
    except StorageError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return RunFolder(path, plan)


def discard_unmeasured(path: Path) -> None:
    """Removes the folder of a run that failed before its first launch: there is nothing in it to go on with."""
    if not any(path.glob("launch-*.jsonl")):
        shutil.rmtree(path, ignore_errors=True)


def tidy(path: Path) -> None:
    """Removes what a killed bench had begun to write. To be called by the one who holds the run's device."""
    for left in (*path.glob(".*"), *path.glob("artifacts/.*"), *path.glob("launch-*")):
        if left.is_dir() and left.suffix == ".brought":
            shutil.rmtree(left, ignore_errors=True)
        elif left.suffix != ".jsonl" and left.is_file():
            left.unlink(missing_ok=True)


def reopen(path: Path) -> RunFolder:
    """The folder of a run that was begun. Raises: UsageError: there is none, or its plan cannot be read."""
    try:
        plan = json.loads((path / PLAN).read_text("utf-8"))
        version = plan["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path} is no run that could be resumed: no readable {PLAN}", try_="a folder in reports/"
        ) from error
    if version != SCHEMA_VERSION:
        raise UsageError(f"{path} has a plan of version {version}, this is version {SCHEMA_VERSION}")
    return RunFolder(path, plan)
