"""SIGTERM as a request to save and stop: SLURM, GKE and TPU maintenance send it some seconds before they kill."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

RESTART = 75  # exit code, EX_TEMPFAIL of sysexits.h: run the same command again


class Preempted(RuntimeError):
    """Training stopped because it was asked to; all of it is saved."""


@contextlib.contextmanager
def sigterm_asks() -> Iterator[Callable[[int], bool]]:
    """While it lasts SIGTERM does not end the process; the function it gives says, at a step, whether one has come.

    Only the main thread can handle signals: in any other, and before and after, SIGTERM does what it did. Where several
    processes run, JAX's own service hears it in whichever it reaches, and all of them stop after the same step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
