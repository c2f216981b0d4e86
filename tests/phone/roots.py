"""A phone's root folder, made from a recorded phone: its programs, its /sys and /proc text, its settings and properties.

What programs on the phone read and write lies in /state there, so that a test sees what was set and what was undone:
    /state/properties         NAME=VALUE a line: getprop
    /state/settings/global/X  one file a setting: settings, svc power stayon
    /state/dumpsys/X.txt      what dumpsys X prints
    /state/proc/X             what /proc/X holds (loadavg, meminfo, boot_id, ...); write in place, do not replace the file
    /state/fixed_performance, /state/deviceidle   0 or 1
    /state/log                every call of settings, svc, cmd, dumpsys, setprop, input; a line each
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import tomllib
import uuid
from collections.abc import Iterable
from pathlib import Path

import build_adbd
import debian

HERE = Path(__file__).resolve().parent
SHELL_UID = 2000
PHONES = tuple(sorted(path.name for path in (HERE / "recorded").iterdir() if path.is_dir()))
# ABI -> Debian's architecture and the folder of mksh's static build in its package
ABIS = {"x86_64": ("amd64", "x86_64-linux-musl"), "arm64": ("arm64", "aarch64-linux-musl")}



def programs(abi: str) -> Path:
    """The folder with `sh` and `busybox` for this ABI, static, out of Debian's packages. Raises: debian.Unavailable."""
    architecture, mksh_folder = ABIS[abi]
    with build_adbd.cache_lock(abi) as cache:
        folder = cache / abi
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="handset-phone-") as scratch:
                archive = debian.Archive(Path(scratch) / "apt", architecture, "deb")
                part = cache / f"{abi}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                shutil.copy(archive.unpack("mksh") / "usr" / "lib" / mksh_folder / "bin" / "mksh", part / "sh")
                shutil.copy(archive.unpack("busybox-static") / "bin" / "busybox", part / "busybox")
                part.rename(folder)
    return folder


def keep(sys_lines: Iterable[str], cores: int | None) -> dict[int, int]:
    """Recorded core -> its number on a phone with only `cores` of them (None: all).

    One of each cluster is kept, from the biggest down, then the rest of the bigger ones: a machine with
    2 cores can then be told to run on the phone's biggest one.
    """
    clusters = {path: [int(cpu) for cpu in cpus.split()] for path, _, cpus in (line.partition(":") for line in sys_lines)
                if path.endswith("/affected_cpus")}
    # cores are numbered from the smallest up on all recorded phones
    clusters_down = sorted(clusters.values(), reverse=True)
    order = [cpus[0] for cpus in clusters_down] + [cpu for cpus in clusters_down for cpu in cpus[1:]]
    return {old: new for new, old in enumerate(sorted(order[:cores]))}


def span(cpus: list[int]) -> str:
    """Neighbouring cores as the kernel lists them: 0-3, 7."""
    return f"{cpus[0]}-{cpus[-1]}" if len(cpus) > 1 else str(cpus[0])


def fit_sys(lines: Iterable[str], kept: dict[int, int]) -> list[str]:
    """The recorded lines of /sys for the cores that are kept, under their new numbers."""
    lines = list(lines)
    policies = {line.split("/")[6]: [kept[int(cpu)] for cpu in line.partition(":")[2].split() if int(cpu) in kept]
                for line in lines if "/affected_cpus:" in line}
    fitted = []
    for line in lines:
        path, _, value = line.partition(":")
        parts = path.split("/")
        if (core := re.fullmatch(r"/sys/devices/system/cpu/cpu(\d+)/.*", path)) is not None:
            if int(core[1]) not in kept:
                continue
            parts[5] = f"cpu{kept[int(core[1])]}"
            if parts[-1].endswith("_list"):
                ends = [int(cpu) for cpu in value.split("-")]
                value = span([kept[cpu] for cpu in range(ends[0], ends[-1] + 1) if cpu in kept])
        elif "/policy" in path:
            cpus = policies[parts[6]]
            if not cpus:
                continue
            parts[6] = f"policy{cpus[0]}"
            if parts[7] in ("affected_cpus", "related_cpus"):
                value = " ".join(map(str, cpus))
        elif parts[-1] in ("possible", "present", "online"):
            value = span(list(kept.values()))
        fitted.append("/".join(parts) + ":" + value)
    return fitted


def fit_cpuinfo(text: str, kept: dict[int, int]) -> str:
    """The recorded /proc/cpuinfo for the cores that are kept, under their new numbers."""
    paragraphs = []
    for paragraph in re.split(r"(?=^processor\t)", text, flags=re.MULTILINE):
        head = re.match(r"processor\t: (\d+)\n", paragraph)
        if head is None:
            paragraphs.append(paragraph)
            continue
        body, gap, rest = paragraph.partition("\n\n")
        if int(head[1]) in kept:
            paragraphs.append(f"processor\t: {kept[int(head[1])]}\n" + body[head.end():] + gap)
        paragraphs.append(rest)  # lines about the whole chip follow the last core
    return "".join(paragraphs)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def write_sys(root: Path, lines: Iterable[str], thermal_zones_readable: bool) -> None:
    """/sys from lines `path:value`, as `grep -r "" /sys/...` prints them; a path that comes again is a file of many lines."""
    texts: dict[str, str] = {}
    for line in lines:
        path, _, value = line.partition(":")
        texts[path] = texts.get(path, "") + value + "\n"
    for path, text in texts.items():
        write(root / path.lstrip("/"), text)
    for policy in (root / "sys/devices/system/cpu/cpufreq").glob("policy*"):
        write(policy / "cpuinfo_cur_freq", (policy / "scaling_cur_freq").read_text(), 0o400)  # root's on all phones
        for cpu in (policy / "affected_cpus").read_text().split():
            (root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq").symlink_to(f"../cpufreq/{policy.name}")
    zones = root / "sys/class/thermal"
    if zones.exists() and not thermal_zones_readable:
        zones.chmod(0o700)


def properties(phone: str, abi: str, require_auth: bool) -> str:
    """/state/properties of a recorded `getprop`; the ABI is what is run, and authentication what the test wants."""
    found: dict[str, str] = {}
    for line in (HERE / "recorded" / phone / "getprop.txt").read_text().splitlines():
        name, _, value = line.partition("]: [")
        found[name[1:]] = value[:-1]
    found["ro.adb.secure"] = str(int(require_auth))
    found["ro.boot.qemu"] = "1"  # its times are this machine's, not a phone's
    if abi != "arm64":
        found |= dict.fromkeys((f"ro.product.cpu.{suffix}" for suffix in ("abi", "abilist", "abilist64")), abi)
        found["ro.product.cpu.abilist32"] = ""
    return "".join(f"{name}={value}\n" for name, value in sorted(found.items()))


def new_boot(root: Path) -> str:
    """What changes when a phone restarts: its boot id, which is returned; what only the running system holds is gone."""
    boot_id = str(uuid.uuid4())
    write(root / "state/proc/sys/kernel/random/boot_id", boot_id + "\n")
    for name, value in (("fixed_performance", "0\n"), ("deviceidle", "1\n"), ("log", "")):
        write(root / "state" / name, value)
        os.chown(root / "state" / name, SHELL_UID, SHELL_UID)
    return boot_id


def make(root: Path, phone: str, abi: str, *, cores: int | None = None, require_auth: bool = False) -> None:
    """Fills the empty folder `root`. Needs root (files belong to the shell user). Raises: debian.Unavailable, ValueError."""
    if phone not in PHONES or abi not in ABIS:
        raise ValueError(f"phone {phone!r} on {abi!r}: there are {', '.join(PHONES)} on {', '.join(ABIS)}")
    recorded = HERE / "recorded" / phone
    behaviour = tomllib.loads((recorded / "behaviour.toml").read_text())
    root.chmod(0o755)
    bin_folder = root / "system" / "bin"
    for name in ("system/bin", "dev", "proc", "etc", "storage", "sdcard", "data/local/tmp", "data/misc/adb",
                 "state/settings/system", "state/settings/secure", "state/settings/global"):
        (root / name).mkdir(parents=True)
    for program in programs(abi).iterdir():
        shutil.copy(program, bin_folder / program.name)
    # what toybox has on Android 9 and busybox has too: a command that a phone lacks must fail here as well
    for applet in (HERE / "applets.txt").read_text().split():
        (bin_folder / applet).symlink_to("busybox")
    for script in (HERE / "bin").iterdir():
        shutil.copy(script, bin_folder / script.name)
        (bin_folder / script.name).chmod(0o755)
    write(root / "etc/passwd", "root:x:0:0:root:/:/system/bin/sh\nshell:x:2000:2000:shell:/:/system/bin/sh\n")
    groups = {"root": 0, "shell": 2000, "input": 1004, "log": 1007, "adb": 1011, "sdcard_rw": 1015, "inet": 3003}
    write(root / "etc/group", "".join(f"{name}:x:{gid}:\n" for name, gid in groups.items()))
    (root / "data/misc").chmod(0o711)

    state = root / "state"
    sys_lines = (recorded / "sys.txt").read_text().splitlines()
    kept = keep(sys_lines, cores)
    write_sys(root, fit_sys(sys_lines, kept), behaviour["thermal_zones_readable"])
    shutil.copytree(recorded / "proc", state / "proc")
    write(state / "proc/cpuinfo", fit_cpuinfo((state / "proc/cpuinfo").read_text(), kept))
    shutil.copytree(recorded / "dumpsys", state / "dumpsys")
    write(state / "properties", properties(phone, abi, require_auth))
    write(state / "fixed_performance_support", behaviour["fixed_performance"] + "\n")
    write(state / "stay_on_all", f"{behaviour['stay_on_all']}\n")
    for line in (recorded / "settings.txt").read_text().splitlines():
        namespace, _, rest = line.partition(" ")
        name, _, value = rest.partition("=")
        write(state / "settings" / namespace / name, value + "\n")
    for written in (state, *state.rglob("*")):
        os.chown(written, SHELL_UID, SHELL_UID)
    for path, mode in (("data/local", 0o751), ("data/local/tmp", 0o771)):
        os.chown(root / path, SHELL_UID, SHELL_UID)
        (root / path).chmod(mode)
    (root / "data").chmod(0o771)
    new_boot(root)
