"""A test phone to try things on, until Ctrl-C: python tests/phone/run.py --port 5655 --abi x86_64"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import debian
import roots
from phone import Phone


def main() -> int:
    parser = argparse.ArgumentParser(description="A test phone: Android's real adbd on a loopback port, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=5655, help="not 5555-5585, which adb servers scan (default 5655)")
    parser.add_argument("--abi", choices=list(roots.ABIS), default="x86_64",
                        help="arm64 runs under qemu: right outputs, meaningless times")
    parser.add_argument("--phone", choices=roots.PHONES, default="pixel")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="how many of the phone's cores its /sys shows (default: as many as this machine has; 8: all)")
    parser.add_argument("--auth", type=Path, metavar="ADBKEY.PUB", help="let only this key in")
    arguments = parser.parse_args()
    print("starting (the first time, adbd is built: about a minute) ...", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Phone(arguments.abi, arguments.phone, port=arguments.port, cores=arguments.cores,
                   require_auth=arguments.auth is not None) as phone:
            if arguments.auth is not None:
                phone.authorize(arguments.auth)
            print(f"{arguments.phone} ({arguments.abi}) is up; its files: {phone.root}\n"
                  f"  adb connect {phone.serial}\n  make bench DEVICE={phone.serial}\nCtrl-C ends it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except (debian.Unavailable, ValueError, OSError) as error:
        print(f"no test phone: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
