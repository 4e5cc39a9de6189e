"""SIGTERM as a request to save and stop: SLURM, GKE and TPU maintenance send it some seconds before they kill."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

RESTART = 75  # exit code, EX_TEMPFAIL of sysexits.h: run the same command again


class Preempted(RuntimeError):
    """Training stopped because it was asked to; all of it is saved."""


@contextlib.contextmanager
def sigterm_asks() -> Iterator[Callable[[], bool]]:
    """While it lasts SIGTERM does not end the process; the function it gives says whether one has come.

    Only the main thread can handle signals: in any other, and before and after, SIGTERM does what it did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
