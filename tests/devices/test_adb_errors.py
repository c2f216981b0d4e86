"""Foreign exceptions as ours: the table is complete, the messages are one line and say what to do; hostile text is cleaned."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import unicodedata
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.adb import describe, stream
from devices.adb.errors import TABLE, clean, mapped, translate
from devices.errors import DeviceError, DeviceLost, NoSuchDevice, TransferError


def exceptions_of(module: ModuleType) -> list[type[BaseException]]:
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, BaseException) and kind.__module__ == module.__name__
    ]


@pytest.mark.parametrize(
    "name", ["adb_shell.exceptions", "adbutils.errors", "devices.adb.stream", "devices.adb.direct"]
)
def test_the_table_has_every_exception(name: str) -> None:
    module = pytest.importorskip(name)
    kinds = exceptions_of(module)
    assert kinds, "the walk finds them"
    assert [kind.__qualname__ for kind in kinds if f"{name}.{kind.__qualname__}" not in TABLE] == []


def test_the_table_has_nothing_else() -> None:
    import importlib

    for name in TABLE:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception), name
        assert issubclass(TABLE[name][0], DeviceError)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ConnectionResetError("reset"), DeviceLost, "pixel was lost while pushing x: reset; try: look at the cable"),
        (TimeoutError(), DeviceLost, "pixel was lost while pushing x; try: look at the cable"),
        (EOFError("end"), DeviceLost, "pixel was lost while pushing x: end"),
        (stream.Silence("5 s"), DeviceLost, "pixel does not answer while pushing x: 5 s; try: look at the cable"),
    ],
)
def test_messages(error: Exception, kind: type[DeviceError], said: str) -> None:
    with pytest.raises(kind) as told, mapped("pixel", "pushing x"):
        raise error
    assert type(told.value) is kind and str(told.value).startswith(said) and told.value.__cause__ is error


def test_a_phone_that_wants_tls_is_sent_to_the_server() -> None:
    direct = pytest.importorskip("devices.adb.direct")
    ours = translate(direct.TlsWanted("STLS"), "pixel", "connecting")
    assert isinstance(ours, NoSuchDevice) and "adb pair" in str(ours)


def test_what_is_ours_or_a_bug_passes() -> None:
    for error in (TransferError("x"), KeyError("x"), KeyboardInterrupt(), AssertionError()):
        with pytest.raises(type(error)) as told, mapped("pixel", "x"):
            raise error
        assert told.value is error


@given(st.text(max_size=400), st.integers(1, 60))
def test_clean_text_is_one_printable_line(text: str, limit: int) -> None:
    line = clean(text, limit)
    assert len(line) <= limit
    assert all(unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in line)


def test_clean_keeps_what_is_harmless() -> None:
    assert clean("Pixel 6 (日本)", 40) == "Pixel 6 (日本)"
    assert clean("a\x1b[31mb\u202ec\nd", 40) == "a [31mb c d"
    assert clean("x" * 50, 10) == "x" * 9 + "…"


HOSTILE = (
    """[ro.product.model]: [Pixel \x1b]0;pwned\x07 6]
[ro.product.manufacturer]: [Goo
gle]
[ro.empty]: []
[ro.build.version.release]: [12]
[ro.build.id]: [<script>alert(1)</script>]
junk [x]: [y]
[ro.long]: ["""
    + "x" * 3000
    + "]\n[after]: [ok]\r\n"
)


def test_properties_of_a_hostile_phone() -> None:
    found = describe.parse_properties(HOSTILE)
    assert found["ro.product.model"] == "Pixel ]0;pwned 6"
    assert found["ro.product.manufacturer"] == "Goo gle" and found["ro.empty"] == "" and found["after"] == "ok"
    assert len(found["ro.long"]) == describe.MAX_TEXT
    many = describe.parse_properties("".join(f"[p{number}]: [v]\n" for number in range(9000)))
    assert len(many) == describe.MAX_PROPERTIES


@given(st.text(max_size=300))
def test_no_text_breaks_the_description(text: str) -> None:
    texts = dict.fromkeys(describe.TEXTS, text)
    description = describe.description_of("n", describe.parse_properties(text), texts, text)
    assert 1 <= description.cores <= 64
    assert all(
        0 < len(part) <= 120 for part in (description.model, description.os, description.kernel, description.abi)
    )


def test_descriptions() -> None:
    properties = {
        "ro.product.manufacturer": "samsung", "ro.product.model": "SM-S911B", "ro.soc.manufacturer": "QTI",
        "ro.soc.model": "SM8550", "ro.build.version.release": "14", "ro.build.id": "UP1A.231005.007",
        "ro.product.cpu.abi": "arm64-v8a",
    }  # fmt: skip
    texts = {describe.PRESENT: "0-7\n", describe.MEMINFO: "MemTotal:        7654321 kB\nMemFree: 1 kB\n"}
    full = describe.description_of("R5", properties, texts, "5.15.123-android13 aarch64\n")
    assert (full.model, full.os) == ("samsung SM-S911B (QTI SM8550)", "Android 14 (UP1A.231005.007)")
    assert (full.kernel, full.abi, full.cores) == ("5.15.123-android13", "arm64-v8a", 8)
    assert full.memory_bytes == 7654321 * 1024
    bare = describe.description_of("R5", {}, {describe.CPUINFO: "processor\t: 0\nprocessor\t: 1\n"}, "4.4 aarch64")
    assert (bare.model, bare.os, bare.kernel, bare.abi) == ("unknown", "unknown", "4.4", "aarch64")
    assert (bare.cores, bare.memory_bytes) == (2, None)
    old = describe.description_of(
        "R5", {"ro.product.manufacturer": "HTC", "ro.product.model": "HTC One", "ro.hardware": "m7"}, {}, ""
    )
    assert (old.model, old.kernel, old.cores) == ("HTC One (m7)", "unknown", 1)
    assert not full.simulated and not bare.simulated


@pytest.mark.parametrize(("value", "simulated"), [("1", True), ("0", False), ("", False), ("yes", False)])
@pytest.mark.parametrize("name", ["ro.kernel.qemu", "ro.boot.qemu"])
def test_an_emulated_phone_says_so(name: str, value: str, simulated: bool) -> None:
    assert describe.description_of("emulator-5554", {name: value}, {}, "").simulated is simulated


def test_looking_for_phones_loads_neither_library() -> None:
    code = (
        "import sys, devices.adb.find, devices.adb.phone, devices.adb.usb, devices.adb.keys\n"
        "devices.adb.find.find_phones()\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('adb_shell', 'adbutils', 'cryptography')])"
    )
    environment = {**os.environ, "ADB_SERVER_SOCKET": "tcp:127.0.0.1:1"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert said.stdout.strip() == "[]"
