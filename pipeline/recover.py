"""What earlier starts left on a device: a run's own launches come home, a runner that nobody waits for ends, the old goes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from devices.errors import DeviceBusy, DeviceError, DeviceLost
from devices.transport import Transport
from pipeline.collect import collect, logs_of, runs_folder

# WORKDIR RUN: ends a runner of this run that still goes on, because nobody told it that its link was lost; removes what was
# left over a week ago, and bundles and models that were not used for a month. Says which other runner is at work, then the
# names in the run's folder. The shell's read leaves out the NULs between the words of a command line.
LOOK = """runners() {
  for f in /proc/[0-9]*/cmdline; do
    l=; read -r l <"$f"
    case $l in *handset-runner*"$1"*/job) f=${f%/*}; echo "${f##*/}" ;; esac
  done 2>/dev/null
}
cd -- "$1" 2>/dev/null || exit 0
n=0
for pid in $(runners "$1/runs/$2/"); do kill "$pid"; done 2>/dev/null
while [ "$(runners "$1/runs/$2/")" ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
for pid in $(runners "$1/runs/$2/"); do kill -KILL "$pid"; done 2>/dev/null
for pid in $(runners "$1/runs/"); do echo "runner-$pid"; break; done
find . -mindepth 1 -maxdepth 1 -name 'check-*' -mtime +7 -exec rm -rf -- {} +
for d in bundles models; do [ ! -d $d ] || find $d -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf -- {} +; done
cd runs 2>/dev/null || exit 0
find . -mindepth 1 -maxdepth 1 ! -name "$2" -mtime +7 -exec rm -rf -- {} +
ls -1 -- "$2" 2>/dev/null | head -c 65536
exit 0"""


def recover(device: Transport, run: str, folder: Path, cases: Iterable[str], models_bytes: int = 0) -> list[Path]:
    """Brings home what launches of this run left on the device when their link was lost; the files in `folder`.

    A launch that cannot be read is given up. What other runs left, whose folders are gone here, goes after a week; what no
    run used for a month, too.

    Args: cases: the ids of the run's cases. models_bytes: of all their models.

    Raises: DeviceBusy: a runner of another run is at work there; DeviceLost, StorageError.
    """
    base, found, logs = runs_folder(device, run), [], logs_of(cases)
    told = device.run(["sh", "-c", LOOK, "sh", device.workdir, run], timeout_s=60)
    names = told.stdout.decode("ascii", "replace").split()
    if busy := [name for name in names if re.fullmatch(r"runner-[0-9]{1,10}", name)]:
        what = f"{device.name} is at work for another bench, of another computer or one whose link was lost ({busy[0]})"
        raise DeviceBusy(what, try_="wait for it to end")
    for name in sorted(name for name in names if re.fullmatch(r"launch-[0-9]{2,6}", name)):
        path = folder / f"{name}.jsonl"
        if not path.exists():
            try:
                collect(device, f"{base}/{name}", path, logs, models_bytes)
                found.append(path)
            except DeviceLost:
                raise
            except DeviceError:
                pass
    if names:
        device.run(["rm", "-rf", base], timeout_s=60)
    return found
