"""What a phone says of itself, bounded and cleaned: nothing of it is trusted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from devices.adb.errors import clean
from devices.cores import parse_cpu_list
from devices.transport import DeviceDescription

PRESENT = "/sys/devices/system/cpu/present"
CPUINFO = "/proc/cpuinfo"
MEMINFO = "/proc/meminfo"
TEXTS = (PRESENT, CPUINFO, MEMINFO)
UNKNOWN = "unknown"
EMULATED = ("ro.kernel.qemu", "ro.boot.qemu")
"""One of them is "1" on an emulated phone, Android's own emulator too: its times are its host's."""
MAX_PROPERTIES = 4096
MAX_TEXT = 120


def parse_properties(text: str) -> dict[str, str]:
    """`getprop`'s `[name]: [value]` lines; a value may hold line ends. At most MAX_PROPERTIES, each cleaned."""
    found = re.finditer(r"^\[([^\]\n]{1,200})\]: \[(.{0,4000}?)\]\r?$", text, re.MULTILINE | re.DOTALL)
    return {match[1]: clean(match[2], MAX_TEXT) for match, _ in zip(found, range(MAX_PROPERTIES), strict=False)}


def description_of(name: str, properties: Mapping[str, str], texts: Mapping[str, str], uname: str) -> DeviceDescription:
    """Args: texts: of TEXTS, those that can be read; uname: of `uname -r -m`."""
    release, _, machine = clean(uname, MAX_TEXT).rpartition(" ")
    memory = re.search(r"^MemTotal:\s+([0-9]{1,12}) kB", texts.get(MEMINFO, ""), re.MULTILINE)
    return DeviceDescription(
        name=name,
        kind="adb",
        model=_model(properties),
        os=_os(properties),
        kernel=release or machine or UNKNOWN,
        abi=properties.get("ro.product.cpu.abi") or machine or UNKNOWN,
        cores=_cores(texts),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        simulated=any(properties.get(name) == "1" for name in EMULATED),
    )


def _model(properties: Mapping[str, str]) -> str:
    """Maker, model and system on chip: "Google Pixel 6 (Tensor GS101)"."""
    maker, model = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "")
    if model.lower().startswith(maker.lower()):
        maker = ""
    soc = f"{properties.get('ro.soc.manufacturer', '')} {properties.get('ro.soc.model', '')}".strip()
    soc = soc or properties.get("ro.board.platform") or properties.get("ro.hardware", "")
    named = f"{maker} {model}".strip() or UNKNOWN
    return clean(f"{named} ({soc})" if soc else named, MAX_TEXT)


def _os(properties: Mapping[str, str]) -> str:
    release, build = properties.get("ro.build.version.release"), properties.get("ro.build.id")
    if not release:
        return UNKNOWN
    return clean(f"Android {release} ({build})" if build else f"Android {release}", MAX_TEXT)


def _cores(texts: Mapping[str, str]) -> int:
    with contextlib.suppress(ValueError):
        return len(parse_cpu_list(texts.get(PRESENT, ""))) or 1
    return max(1, min(64, len(re.findall(r"^processor\s*:", texts.get(CPUINFO, ""), re.MULTILINE))))
