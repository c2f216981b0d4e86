"""AARs of our own making, honest and hostile; the published one where HANDSET_AAR says where it lies."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from pathlib import Path

import pytest

from devices import aar, android_bundle
from devices.aar import AarLibrary, extract, label, open_aar, page_size_warning, verify
from devices.android_bundle import ENTRIES, TARGETS, runtime_of
from devices.android_bundle import android_bundle as make_bundle
from devices.bundle import RuntimeBundle, compile_c
from devices.discovery import cache_dir
from devices.errors import BundleError

EXPORTS = {"libtf.so": ENTRIES["tflite"], "libort.so": ENTRIES["onnxruntime"], "libother.so": frozenset({"other"})}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> dict[str, bytes]:
    """Small libraries for arm64, with the names that runtimes export; one of them fits every page size."""
    folder = tmp_path_factory.mktemp("libraries")
    made = {}
    for name, exports in EXPORTS.items():
        (folder / "source.c").write_text("".join(f"void {one}(void) {{}}\n" for one in sorted(exports)))
        page = 16384 if name == "libort.so" else 4096
        flags = ["-nostdlib", "-shared", "-fPIC", "-s", "-fno-sanitize=all", f"-Wl,-z,max-page-size={page}"]
        compile_c(["-target", "aarch64-linux-gnu", *flags, str(folder / "source.c")], folder / name, cache_dir())
        made[name] = (folder / name).read_bytes()
    return made


def packed(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, content in entries.items():
            opened.writestr(name, content)
    return path


@pytest.fixture
def archive(tmp_path: Path, libraries: dict[str, bytes]) -> Path:
    entries = {"AndroidManifest.xml": b"<manifest/>", "jni/": b"", "classes.jar": b"PK"}
    entries |= {f"jni/arm64-v8a/{name}": content for name, content in libraries.items()}
    entries |= {"jni/x86/libold.so": b"never read", "jni/arm64-v8a/notes.txt": b"no library"}
    return packed(tmp_path / "tensorflow-lite-2.99.0.aar", entries)


def files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_libraries_lie_under_their_own_hash(archive: Path, tmp_path: Path, libraries: dict[str, bytes]) -> None:
    found = extract(archive, "arm64-v8a", tmp_path / "cache")
    assert [one.name for one in found] == sorted(libraries)
    archive_hash = hashlib.sha256(archive.read_bytes()).hexdigest()
    for one in found:
        digest = hashlib.sha256(libraries[one.name]).hexdigest()
        assert one.file.path == tmp_path / "cache" / "aar" / digest / one.name
        assert one.file.path.read_bytes() == libraries[one.name]
        assert one.file.sha256 == digest
        origin = f"aar:org.tensorflow:tensorflow-lite:2.99.0 sha256:{archive_hash}!jni/arm64-v8a/{one.name}"
        assert one.file.origin == origin
        assert one.elf.exports == EXPORTS[one.name]
    assert sorted(files(tmp_path / "cache")) == sorted(one.file.path for one in found)
    assert extract(archive, "arm64-v8a", tmp_path / "cache") == found


def test_page_size_is_said(archive: Path, tmp_path: Path) -> None:
    warnings = {one.name: page_size_warning(one.file) for one in extract(archive, "arm64-v8a", tmp_path)}
    assert warnings["libort.so"] is None
    assert "libtf.so is aligned to 4 KiB: phones with 16 KiB pages refuse it" in (warnings["libtf.so"] or "")


def test_what_was_changed_in_the_cache_is_refused(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one = extract(archive, "arm64-v8a", cache)[0]
    verify(one.file)
    one.file.path.write_bytes(one.file.path.read_bytes()[:-1] + b"!")
    for check in (lambda: verify(one.file), lambda: extract(archive, "arm64-v8a", cache)):
        with pytest.raises(BundleError, match=f"{one.name} was changed: .* try: rm "):
            check()
    one.file.path.unlink()
    with pytest.raises(BundleError, match="cannot read"):
        verify(one.file)
    assert extract(archive, "arm64-v8a", cache)[0] == one


def test_another_archive_than_the_one_written_down(archive: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert extract(archive, "arm64-v8a", tmp_path / "cache", sha256=digest)
    with pytest.raises(BundleError, match="another file or was tampered with"):
        extract(archive, "arm64-v8a", tmp_path / "other", sha256="0" * 64)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.so",
        "jni/../../evil.so",
        "/etc/evil.so",
        "jni\\arm64-v8a\\libx.so",
        "C:/libx.so",
        "..",
        "jni/arm64-v8a/..",
    ],
)
def test_names_that_leave_their_folder(name: str, tmp_path: Path, libraries: dict[str, bytes]) -> None:
    path = packed(tmp_path / "bad.aar", {"jni/arm64-v8a/libtf.so": libraries["libtf.so"], name: b"x"})
    with pytest.raises(BundleError, match=r"bad\.aar is refused: its entry .* would leave its folder"):
        extract(path, "arm64-v8a", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_name_with_a_nul(tmp_path: Path, libraries: dict[str, bytes]) -> None:
    path = packed(tmp_path / "bad.aar", {"jni/arm64-v8a/libtf.so0evil": libraries["libtf.so"]})
    path.write_bytes(path.read_bytes().replace(b"libtf.so0evil", b"libtf.so\0evil"))
    with pytest.raises(BundleError, match="is refused: its entry"):
        extract(path, "arm64-v8a", tmp_path / "cache")


def test_name_that_is_there_twice(tmp_path: Path, libraries: dict[str, bytes]) -> None:
    path = tmp_path / "bad.aar"
    with zipfile.ZipFile(path, "w") as opened, pytest.warns(UserWarning, match="Duplicate name"):
        for name in ("libtf.so", "libother.so"):
            opened.writestr("jni/arm64-v8a/libtf.so", libraries[name])
    with pytest.raises(BundleError, match=r"it has jni/arm64-v8a/libtf\.so twice"):
        extract(path, "arm64-v8a", tmp_path / "cache")


def test_symbolic_link(tmp_path: Path) -> None:
    path = tmp_path / "bad.aar"
    with zipfile.ZipFile(path, "w") as opened:
        info = zipfile.ZipInfo("jni/arm64-v8a/libtf.so")
        info.external_attr = 0o120777 << 16
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(BundleError, match="is no plain file"):
        extract(path, "arm64-v8a", tmp_path / "cache")


def test_flipped_byte_is_seen(tmp_path: Path, libraries: dict[str, bytes]) -> None:
    entries = {"jni/arm64-v8a/libtf.so": libraries["libtf.so"]}
    content = bytearray(packed(tmp_path / "bad.aar", entries, zipfile.ZIP_STORED).read_bytes())
    content[content.index(libraries["libtf.so"]) + 700] ^= 1
    (tmp_path / "bad.aar").write_bytes(content)
    with pytest.raises(BundleError, match=r"bad\.aar is damaged, or no AAR: Bad CRC-32"):
        extract(tmp_path / "bad.aar", "arm64-v8a", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("size", [0, 10, 500, -5])
def test_archive_that_is_cut_short(size: int, archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(BundleError, match="is damaged, or no AAR"):
        extract(archive, "arm64-v8a", tmp_path / "cache")


def test_encrypted_entry(archive: Path, tmp_path: Path) -> None:
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"jni/arm64-v8a/libtf.so"))
    struct.pack_into("<H", content, at + 8, 1)
    archive.write_bytes(content)
    with pytest.raises(BundleError, match="is damaged, or no AAR: .*encrypted"):
        extract(archive, "arm64-v8a", tmp_path / "cache")


def test_sizes_are_bounded(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, said in (
        ("MAX_ARCHIVE_BYTES", "is no file of at most"),
        ("MAX_LIBRARY_BYTES", "is not unpacked"),
        ("MAX_ENTRIES", "entries, more than 2"),
        ("MAX_LIBRARIES", "3 libraries for arm64-v8a, more than 2"),
    ):
        with monkeypatch.context() as patch, pytest.raises(BundleError, match=said):
            patch.setattr(aar, limit, 2)
            extract(archive, "arm64-v8a", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aar, "MAX_LIBRARY_BYTES", 1 << 20)
    path = packed(tmp_path / "bomb.aar", {"jni/arm64-v8a/libtf.so": bytes(8 << 20)})
    with pytest.raises(BundleError, match="larger than 1 MiB and is not unpacked"):
        extract(path, "arm64-v8a", tmp_path / "cache")


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text.aar").write_text("not a zip")
    with pytest.raises(BundleError, match="is damaged, or no AAR"):
        extract(tmp_path / "text.aar", "x86_64", tmp_path)
    for path in (tmp_path / "none.aar", tmp_path):
        with pytest.raises(BundleError, match="is no file of at most 512 MiB"):
            extract(path, "x86_64", tmp_path)


def test_abi_that_is_not_there(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no libraries for x86_64; it has arm64-v8a, x86; try: "):
        extract(archive, "x86_64", tmp_path)
    with pytest.raises(BundleError, match="it has none at all"):
        extract(packed(tmp_path / "empty.aar", {"classes.jar": b""}), "x86_64", tmp_path)


def test_library_in_the_wrong_folder(tmp_path: Path, libraries: dict[str, bytes]) -> None:
    path = packed(tmp_path / "bad.aar", {"jni/x86_64/libtf.so": libraries["libtf.so"]})
    with pytest.raises(BundleError, match="is refused: it is for arm64-v8a, not a library for x86_64"):
        extract(path, "x86_64", tmp_path / "cache")


def test_cache_that_cannot_be_written(archive: Path) -> None:
    with pytest.raises(BundleError, match="cannot take libraries from"):
        extract(archive, "arm64-v8a", Path("/proc/none"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tensorflow-lite-2.16.1.aar", ("org.tensorflow:tensorflow-lite", "2.16.1")),
        ("onnxruntime-android-1.20.0-rc1.aar", ("com.microsoft.onnxruntime:onnxruntime-android", "1.20.0-rc1")),
        ("litert-1.4.0.aar", ("com.google.ai.edge.litert:litert", "1.4.0")),
        ("my-runtime-7.aar", ("my-runtime", "7")),
        ("a\nhostile <name>.aar", ("a_hostile__name_", "")),
    ],
)
def test_label(name: str, expected: tuple[str, str]) -> None:
    assert label(Path("/folder-1.0") / name) == expected


# The bundle that is made of them.


def test_bundle(archive: Path, tmp_path: Path, libraries: dict[str, bytes]) -> None:
    made, notes = make_bundle("arm64-v8a", [open_aar(archive)], cache_dir())
    assert (made.kind, made.abi, made.loader) == ("android", "arm64-v8a", "")
    assert made.runner.path.stat().st_mode & 0o777 == 0o755
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    origin = f"aar:org.tensorflow:tensorflow-lite:2.99.0 sha256:{digest}!jni/arm64-v8a"
    assert {name: file.origin for name, file in made.libraries.items()} == {
        "tflite": f"{origin}/libtf.so",
        "onnxruntime": f"{origin}/libort.so",
    }
    assert made.libraries["tflite"].path.read_bytes() == libraries["libtf.so"]
    assert made.versions == dict.fromkeys(("tflite", "onnxruntime"), "2.99.0")
    assert len(notes) == 1 and notes[0].startswith("libtf.so is aligned to 4 KiB")


def test_bundle_refuses(archive: Path, tmp_path: Path, libraries: dict[str, bytes]) -> None:
    other = packed(tmp_path / "other-1.aar", {"jni/arm64-v8a/libother.so": libraries["libother.so"]})
    with pytest.raises(
        BundleError, match=r"other-1\.aar holds no runtime that the runner speaks to; it holds libother"
    ):
        make_bundle("arm64-v8a", [open_aar(other)], cache_dir())
    with pytest.raises(BundleError, match="holds the runtime onnxruntime a second time; try: one AAR a runtime"):
        make_bundle("arm64-v8a", [open_aar(archive), open_aar(archive)], cache_dir())
    with pytest.raises(BundleError, match="no android bundle for armeabi-v7a; there is for arm64-v8a, x86_64"):
        make_bundle("armeabi-v7a", [open_aar(archive)], cache_dir())


def test_bundle_is_built_once_for_each_content_and_wish(
    archive: Path, tmp_path: Path, libraries: dict[str, bytes]
) -> None:
    steps: list[str] = []
    aar = open_aar(archive)

    def made(*runtimes: str) -> RuntimeBundle:
        return make_bundle("arm64-v8a", [aar], cache_dir(), runtimes or None, steps.append)[0]

    first = made()
    del steps[:]
    assert made() == first and steps == [], "it is there already"
    (only,) = made("onnxruntime").libraries
    assert only == "onnxruntime" and steps == ["the android bundle for arm64-v8a"]
    with pytest.raises(BundleError, match="has no runtime litert; its AARs hold onnxruntime, tflite; try: --aar"):
        made("litert")
    packed(archive, {"jni/arm64-v8a/libtf.so": libraries["libtf.so"]})
    with pytest.raises(BundleError, match="it is another file or was tampered with"):
        made("tflite")
    aar = open_aar(archive)
    assert set(made().libraries) == {"tflite"}
    archive.unlink()
    assert set(made().libraries) == {"tflite"}, "what is built needs its archive no more"


def test_library_of_a_built_bundle_that_was_changed(archive: Path) -> None:
    made, _ = make_bundle("arm64-v8a", [open_aar(archive)], cache_dir())
    library = made.libraries["tflite"].path
    content = library.read_bytes()
    library.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(BundleError, match=r"libtflite\.so was changed.*try: handset bundle clean"):
            make_bundle("arm64-v8a", [open_aar(archive)], cache_dir())
    finally:
        library.write_bytes(content)


def test_archive_packed_with_lzma_that_is_damaged(tmp_path: Path, libraries: dict[str, bytes]) -> None:
    for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        path = packed(tmp_path / "a-1.aar", {"jni/arm64-v8a/libtf.so": libraries["libtf.so"]}, compression)
        content = bytearray(path.read_bytes())
        for place in range(70, 120):
            content[place] ^= 255
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"a-1\.aar"):
            extract(path, "arm64-v8a", tmp_path / "cache")


# The published archive.

SHA256 = {
    "aar": "34b065817e294e7dd3569504e8b9454938ceae453b6a459da54d5f6e45d3c94e",
    "arm64-v8a": "a4f950ebb6ddb191cfaf77a4c821b577c5a3200a02b3b338bfa68d00c7446623",
    "x86_64": "21f2570e650fc120ad28a379d927392c1883f9738895a3fd5efa0a32ae784507",
}


@pytest.fixture
def published() -> Path:
    path = os.environ.get("HANDSET_AAR", "")
    if not path:
        pytest.skip("HANDSET_AAR does not say where tensorflow-lite-2.16.1.aar lies")
    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != SHA256["aar"]:
        pytest.skip("HANDSET_AAR is another archive than tensorflow-lite-2.16.1.aar")
    return Path(path)


@pytest.mark.parametrize("abi", sorted(TARGETS))
def test_published_library(abi: str, published: Path, tmp_path: Path) -> None:
    (found,) = extract(published, abi, tmp_path, sha256=SHA256["aar"])
    assert isinstance(found, AarLibrary) and found.name == "libtensorflowlite_jni.so"
    assert found.file.sha256 == SHA256[abi]
    assert found.elf.needed == ("libm.so", "libdl.so", "liblog.so", "libc.so")
    assert found.elf.alignment_bytes == 4096 and page_size_warning(found.file)
    assert runtime_of(found) == "tflite"


@pytest.mark.parametrize("abi", sorted(TARGETS))
def test_published_library_has_every_name_that_is_looked_up(abi: str, published: Path, tmp_path: Path) -> None:
    source = (Path(android_bundle.__file__).parent / "native" / "tflite.c").read_text()
    asked = {word.strip("(), ") for word in source.split() if word.startswith("TfLite") and word.endswith(",")}
    assert len(asked) == 23
    (found,) = extract(published, abi, tmp_path)
    assert asked - found.elf.exports == set()
