"""AARs by their Maven coordinates, through the Maven client that the user has. Fetched once, then found in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devices.aar import Aar, open_aar
from devices.bundle import OnStep
from devices.errors import BundleError

DEFAULT = "org.tensorflow:tensorflow-lite:2.16.1"
"""TensorFlow Lite as apps ship it; the last release under these coordinates."""

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.5.0:copy"
MAVEN_LIMIT_S = 1800.0
WORD = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,120}"
COORDINATES = re.compile(f"({WORD}):({WORD}):({WORD})")

# mirrors and passwords of ~/.m2/settings.xml hold for these repositories as for any other's
PROJECT = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>handset</groupId><artifactId>aar</artifactId><version>1</version><packaging>pom</packaging>
  <repositories>
    <repository><id>central</id><url>https://repo.maven.apache.org/maven2</url></repository>
    <repository><id>google</id><url>https://maven.google.com</url></repository>
  </repositories>
</project>
"""


@dataclass(frozen=True)
class Coordinates:
    group: str
    artifact: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.aar"


def parse_coordinates(text: str) -> Coordinates | None:
    """None where it is no group:artifact:version."""
    match = COORDINATES.fullmatch(text)
    return Coordinates(*match.groups()) if match else None


def fetch_aar(coordinates: Coordinates, cache: Path, on_step: OnStep = lambda text: None) -> Aar:
    """The AAR, from the cache or through Maven.

    Raises: BundleError: there is no Maven, or it does not get it (with its last words); what is in the cache was changed.
    """
    folder = cache / "maven" / coordinates.group / f"{coordinates.artifact}-{coordinates.version}"
    path, digest = folder / coordinates.file_name, folder / "sha256"
    if not os.path.lexists(folder):
        on_step(f"{coordinates} through Maven")
        _fetch(coordinates, folder)
    aar = open_aar(path)
    try:
        kept = digest.read_text("ascii", "replace").strip()[:64]
    except OSError as error:
        kept = f"not known ({error.strerror})"
    if aar.sha256 != kept:
        what = f"{path} was changed: its SHA-256 is {aar.sha256}, not {ascii(kept)[1:-1]}"
        raise BundleError(what, try_="handset bundle clean, then handset bundle build")
    return Aar(path, f"maven:{coordinates}", coordinates.version, aar.sha256)


def _fetch(coordinates: Coordinates, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BundleError(
            f"{coordinates} needs Maven, which is not here", try_="install Maven, or give the AAR's path with --aar"
        )
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        (part / "pom.xml").write_text(PROJECT, "utf-8")
        (part / "out").mkdir()
        _run([
            maven, "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", str(part / "pom.xml"), PLUGIN,
            f"-Dartifact={coordinates}:aar", f"-DoutputDirectory={part / 'out'}",
        ], coordinates)  # fmt: skip
        found = list((part / "out").iterdir())
        if len(found) != 1 or not found[0].is_file():
            raise BundleError(
                f"Maven gave {len(found)} files for {coordinates}, not one", try_="the AAR's path with --aar"
            )
        os.replace(found[0], part / "out" / coordinates.file_name)
        aar = open_aar(part / "out" / coordinates.file_name)
        (part / "out" / "sha256").write_text(aar.sha256 + "\n", "ascii")
        (part / "out").rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster; it fetched the same
            raise BundleError(f"cannot keep {coordinates} in {folder.parent}: {error.strerror or error}") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _run(command: list[str], coordinates: Coordinates) -> None:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
            timeout=MAVEN_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BundleError(f"Maven did not get {coordinates} within {MAVEN_LIMIT_S:.0f} s") from None
    if ended.returncode:
        said = last_words(ended.stdout + "\n" + ended.stderr) or f"status {ended.returncode}"
        raise BundleError(f"Maven cannot get {coordinates}: {said}", try_="its network, or the AAR's path with --aar")


def last_words(text: str) -> str:
    """What Maven's first error says at its end, which is the cause, in at most 300 characters; its last line where none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [
        line.removeprefix("[ERROR]").partition(" -> [Help")[0].strip() for line in lines if line.startswith("[ERROR]")
    ]
    said = (errors[:1] or lines[-1:] or [""])[0]
    return said if len(said) <= 300 else said[-300:].partition(": ")[2] or said[-300:]
