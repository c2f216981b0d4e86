"""Silence around foreign code that reports, prints, warns and logs, also from C++ straight to the file descriptors."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def import_onnxruntime() -> Any:
    """The Python package, imported such that it does not report to its maker: its wheels do where nobody objects."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as package

    return package


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing written to stdout or stderr inside comes out: not by print, logging, warnings or a C++ library.

    The descriptors are the process's, so other threads are silent too while it lasts.
    """
    disabled = logging.root.manager.disable
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        _flush()
        saved = {fd: os.dup(fd) for fd in (1, 2) if _is_open(fd)}
        try:
            for fd in saved:
                os.dup2(sink.fileno(), fd)
            yield
        finally:
            _flush()
            for fd, copy in saved.items():
                os.dup2(copy, fd)
                os.close(copy)
            logging.disable(disabled)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A stream may be None (no console), closed or on a full disk; none of these is the exporter's business.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
