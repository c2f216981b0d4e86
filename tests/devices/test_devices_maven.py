"""AARs by their coordinates: what Maven is asked, what its failure says, what the cache keeps. Maven is a script here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import maven
from devices.errors import BundleError
from devices.maven import DEFAULT, Coordinates, fetch_aar, last_words, parse_coordinates

WANTED = Coordinates("org.tensorflow", "tensorflow-lite", "2.16.1")
CONTENT = b"PK an archive\n"

FETCH = """
for word; do
  case $word in -DoutputDirectory=*) out=${word#*=};; */pom.xml) cp "$word" pom;; esac
done
printf 'PK an archive\\n' > "$out/tensorflow-lite-2.16.1.aar"
"""


@pytest.fixture
def mvn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a Maven that does what its script says, in a folder of its own; gives that folder."""
    folder = tmp_path / "maven home"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(script: str) -> Path:
        (folder / "mvn").write_text(f'#!/bin/sh\ncd "{folder}"\nprintf "%s\\n" "$@" > asked\n{script}\n')
        (folder / "mvn").chmod(0o755)
        return folder

    return make


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEFAULT, WANTED),
        (
            "com.microsoft.onnxruntime:onnxruntime-android:1.20.0-rc1",
            ("com.microsoft.onnxruntime", "onnxruntime-android", "1.20.0-rc1"),
        ),
        ("a:b:c", ("a", "b", "c")),
        ("a:b", None),
        ("a:b:c:d", None),
        ("../a:b:c", None),
        ("a:..:c", None),
        ("a:b/c:d", None),
        ("-Dx=y:b:c", None),
        ("a:b:-c", None),
        ("a:b:", None),
        ("a:b:c\n", None),
        ("/path/to.aar", None),
        ("a:b:" + "c" * 200, None),
    ],
)
def test_coordinates(text: str, expected: tuple[str, str, str] | Coordinates | None) -> None:
    found = parse_coordinates(text)
    assert found == (Coordinates(*expected) if isinstance(expected, tuple) else expected)
    assert found is None or str(found) == text


def test_maven_is_asked_once(mvn: Callable[[str], Path], tmp_path: Path) -> None:
    home, cache, steps = mvn(FETCH), tmp_path / "a cache", list[str]()
    found = fetch_aar(WANTED, cache, steps.append)
    assert found.path.read_bytes() == CONTENT and found.path.name == "tensorflow-lite-2.16.1.aar"
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (found.origin, found.version) == ("maven:org.tensorflow:tensorflow-lite:2.16.1", "2.16.1")
    words = (home / "asked").read_text().splitlines()
    assert words[:4] == ["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"]
    assert words[5] == maven.PLUGIN and words[5].endswith(":copy")
    assert words[6] == "-Dartifact=org.tensorflow:tensorflow-lite:2.16.1:aar"
    assert words[7].startswith(f"-DoutputDirectory={cache}/maven/org.tensorflow/.part-")
    urls = [element.text for element in ET.parse(home / "pom").iter() if element.tag.endswith("url")]
    assert urls == ["https://repo.maven.apache.org/maven2", "https://maven.google.com"]
    mvn("exit 1")
    assert fetch_aar(WANTED, cache, steps.append) == found, "the second time out of the cache"
    assert steps == ["org.tensorflow:tensorflow-lite:2.16.1 through Maven"]
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == ["sha256", found.path.name]


def test_version_that_maven_resolved(mvn: Callable[[str], Path], tmp_path: Path) -> None:
    """A snapshot's file has a date in its name."""
    mvn(FETCH.replace("2.16.1.aar", "2.16.1-20260101.aar"))
    assert fetch_aar(WANTED, tmp_path).path.name == "tensorflow-lite-2.16.1.aar"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "tensorflow-lite-2.16.1.aar").write_bytes(b"other"), "was changed: its SHA-256 is"),
        (
            lambda folder: (folder / "sha256").write_text("0" * 64),
            "was changed: .*, not 0{64}; try: handset bundle clean",
        ),
        (lambda folder: (folder / "sha256").write_bytes(b"\xff\n\x1b[2J" * 1000), "was changed"),
        (lambda folder: (folder / "sha256").unlink(), r"not not known \(No such file"),
        (lambda folder: (folder / "tensorflow-lite-2.16.1.aar").unlink(), "is no file of at most"),
    ],
)
def test_cache_that_was_changed(
    harm: Callable[[Path], object], message: str, mvn: Callable[[str], Path], tmp_path: Path
) -> None:
    mvn(FETCH)
    harm(fetch_aar(WANTED, tmp_path / "cache").path.parent)
    with pytest.raises(BundleError, match=message) as caught:
        fetch_aar(WANTED, tmp_path / "cache")
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "exit 1",
            "Maven cannot get org.tensorflow:tensorflow-lite:2.16.1: status 1; try: its network, or the AAR's path with --aar",
        ),
        ("echo '[ERROR] Cannot reach central -> [Help 1]'; echo '[ERROR] '; exit 1", ": Cannot reach central; try"),
        ("printf '\\033[0m\\033[31m[ERROR]\\033[m no\\n'; exit 1", ": no; try"),
        ("echo no java here >&2; exit 127", ": no java here; try"),
        ("true", "Maven gave 0 files for org.tensorflow:tensorflow-lite:2.16.1, not one"),
        (FETCH + 'touch "$out/more"', "Maven gave 2 files"),
        (FETCH + 'rm "$out"/*; mkdir "$out/folder.aar"', "Maven gave 1 files"),
    ],
)
def test_maven_that_fails(script: str, message: str, mvn: Callable[[str], Path], tmp_path: Path) -> None:
    mvn(script)
    with pytest.raises(BundleError) as caught:
        fetch_aar(WANTED, tmp_path / "cache")
    assert message in str(caught.value)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [], "nothing half-fetched"
    mvn(FETCH)
    assert fetch_aar(WANTED, tmp_path / "cache").path.exists()


def test_the_cause_is_at_the_end() -> None:
    text = (
        "[ERROR] Failed to execute goal a:b: "
        + "could not be resolved: " * 99
        + "Unknown host repo.maven.apache.org -> [Help 1]\n"
    )
    said = last_words(text + "[ERROR] Re-run Maven with -X\n")
    assert said.endswith(": Unknown host repo.maven.apache.org") and said.startswith("could not") and len(said) <= 300
    assert last_words("") == "" and last_words("x" * 999) == "x" * 300


def test_no_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BundleError, match="needs Maven, which is not here; try: install Maven, or give the AAR's path with --aar"
    ):
        fetch_aar(WANTED, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_maven_that_hangs(mvn: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mvn("exec sleep 60")
    monkeypatch.setattr(maven, "MAVEN_LIMIT_S", 0.2)
    with pytest.raises(BundleError, match="Maven did not get .* within 0 s"):
        fetch_aar(WANTED, tmp_path / "cache")


def test_interrupt_leaves_nothing(mvn: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    mvn(FETCH)
    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_aar(WANTED, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_another_process_was_faster(mvn: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache/maven/org.tensorflow/tensorflow-lite-2.16.1"
    faster = (
        f'mkdir -p "{folder}"; cp "$out"/*.aar "{folder}"; cat "$out"/*.aar | sha256sum | cut -c1-64 > "{folder}/sha256"'
    )
    mvn(FETCH + faster)
    assert fetch_aar(WANTED, tmp_path / "cache").path.read_bytes() == CONTENT
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("cache", ["/proc/none", "/dev/null"])
def test_cache_that_cannot_be_written(cache: str, mvn: Callable[[str], Path]) -> None:
    mvn(FETCH)
    with pytest.raises(
        BundleError, match=f"cannot keep org.tensorflow:tensorflow-lite:2.16.1 in {cache}/maven/org.tensorflow: "
    ):
        fetch_aar(WANTED, Path(cache))


def test_the_real_maven_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line, whatever it says over many; it is given a folder of its own, and no way out."""
    if shutil.which("mvn") is None:
        pytest.skip("there is no mvn here")
    monkeypatch.setenv("MAVEN_OPTS", f"{os.environ.get('MAVEN_OPTS', '')} -Duser.home={tmp_path}")
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("<settings><offline>true</offline></settings>")
    with pytest.raises(BundleError) as caught:
        fetch_aar(WANTED, tmp_path / "cache")
    said = str(caught.value)
    assert said.startswith("Maven cannot get org.tensorflow:tensorflow-lite:2.16.1: ") and "\n" not in said
    assert "in offline mode" in said and len(said) < 500
