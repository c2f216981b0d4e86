"""Phone: Android's real adbd on a loopback port, as the shell user in a phone's root folder; x86_64, or arm64 in qemu."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import build_adbd
import debian
import qemu
import roots

HERE = Path(__file__).resolve().parent
SCANNED_PORTS = range(5555, 5586)  # every adb server takes what answers there for an emulator


@functools.cache
def _why_not(abi: str) -> str | None:
    try:
        if os.geteuid() != 0:
            raise debian.Unavailable("the test phone needs root (chroot and namespaces)")
        build_adbd.adbd()
        roots.programs(abi)
        if abi == "arm64":
            qemu.register()
        # as launch.sh and start.sh do: a container may refuse it to its root
        debian.call(["unshare", "--mount", "--pid", "--fork", "--propagation=private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    except (debian.Unavailable, OSError) as error:
        return str(error)
    return None


class Phone:
    """A running test phone. `phone` is one of roots.PHONES.

    `cores`: only so many of the phone's cores in /sys, so that this machine's affinity calls can follow (None: all that were
    recorded). `require_auth`: only keys given to `authorize` may connect. `data`: mount options for a tmpfs at /data, such as
    "size=8m" or "noexec"; its files end with a restart. `port` 0 takes a free one.

    Raises: debian.Unavailable: see `available`. ValueError: no such phone or ABI, a port that adb servers scan.
    """

    def __init__(
        self, abi: str = "x86_64", phone: str = "pixel", *, port: int = 0, cores: int | None = None, require_auth: bool = False,
        data: str = "",
    ) -> None:
        if port in SCANNED_PORTS:
            raise ValueError(f"port {port}: adb servers take what listens on 5555-5585 for an emulator; try 5655")
        if abi not in roots.ABIS or phone not in roots.PHONES:
            raise ValueError(f"phone {phone!r} on {abi!r}: there are {', '.join(roots.PHONES)} on {', '.join(roots.ABIS)}")
        if (reason := self.available(abi)) is not None:
            raise debian.Unavailable(reason)
        self.abi, self.phone, self.port = abi, phone, port
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None
        self.root = Path(tempfile.mkdtemp(prefix="handset-phone-"))
        """The phone's / on this machine; see `path` for what lies under a /data of its own."""
        try:
            roots.make(self.root, phone, abi, cores=cores, require_auth=require_auth)
            self._start()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def available(abi: str = "x86_64") -> str | None:
        """None, or one line that says why there is no test phone here. Builds adbd the first time (about 40 s)."""
        return _why_not(abi)

    def _start(self) -> None:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(16)
            self.port = listener.getsockname()[1]
            argv = ["sh", str(HERE / "launch.sh"), str(self.root), str(build_adbd.adbd()), str(listener.fileno()), self._data]
            with (self.root / "state" / "adbd.log").open("ab") as log:
                self._process = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[listener.fileno()], start_new_session=True)
        deadline = time.monotonic() + 10
        while not self._adbd_runs():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"adbd did not start: {(self.root / 'state' / 'adbd.log').read_text()[-500:]}")
            time.sleep(0.01)

    def _children(self, pid: int) -> list[int]:
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def _init(self) -> int | None:
        """The first process of the phone, as this machine numbers it."""
        if self._process is None:
            return None
        return next((init for unshare in self._children(self._process.pid) for init in self._children(unshare)), None)

    def _adbd_runs(self) -> bool:
        init = self._init()
        for pid in self._children(init) if init is not None else []:
            try:
                inside = Path(f"/proc/{pid}/root").readlink().name == self.root.name
                if inside and "\nUid:\t2000" in Path(f"/proc/{pid}/status").read_text():
                    return True
            except OSError:
                continue
        return False

    def _halt(self, word: bytes) -> None:
        if self._process is not None:
            self._process.communicate(word, timeout=30)
            self._process = None

    @property
    def serial(self) -> str:
        """What `adb connect` takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        """The folder of the phone's state: see `roots`."""
        return self.root / "state"

    @property
    def boot_id(self) -> str:
        return (self.state / "proc/sys/kernel/random/boot_id").read_text().strip()

    @property
    def log(self) -> list[str]:
        """The calls of settings, svc, cmd, dumpsys, ... since the phone started."""
        return (self.state / "log").read_text().splitlines()

    def setting(self, namespace: str, name: str) -> str | None:
        """None where it is not set."""
        path = self.state / "settings" / namespace / name
        return path.read_text().strip() if path.exists() else None

    def path(self, remote: str) -> Path:
        """A path on the running phone, as this machine reaches it: through its own mounts. Raises: RuntimeError: it is off."""
        if (init := self._init()) is None:
            raise RuntimeError(f"{remote}: the phone {self.serial} is off")
        return Path(f"/proc/{init}/root{self.root}") / remote.lstrip("/")

    def authorize(self, public_key: Path) -> None:
        """Adds a key as the dialog on the phone does; it counts from the next connection on."""
        with (self.root / "adb_keys").open("a") as keys:
            keys.write(public_key.read_text().strip() + "\n")

    def restart(self) -> None:
        """All of the phone's processes and connections end; it comes back on the same port with another boot id."""
        self._halt(b"keep\n")
        roots.new_boot(self.root)
        self._start()

    def unplug(self) -> None:
        """The phone is gone until `restart`: connections end, new ones are refused."""
        self._halt(b"keep\n")

    def stop(self) -> None:
        """Ends every process of the phone and removes its folder. May be called twice."""
        self._halt(b"")
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
