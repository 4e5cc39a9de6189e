"""SIGTERM as a request to save and stop.

SLURM, GKE and TPU maintenance send it some seconds before they kill a process.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import jax
from jax.experimental import multihost_utils

RESTART = 75  # exit code, EX_TEMPFAIL of sysexits.h: run the same command again

# How often this process has asked. JAX's service takes the highest number that any
# process has given, adds one, and waits for that number. Step numbers would not do:
# every training counts from its start, so they may never reach it.
_ASKED = itertools.count(1)


class Preempted(RuntimeError):
    """Work stopped on request, and is saved."""


def _others_stop() -> bool:
    """Whether SIGTERM has reached one of several processes.

    All processes get True at the same question, provided that all ask equally often.
    """
    return multihost_utils.reached_preemption_sync_point(next(_ASKED))


def stop_after_sigterm(name: str) -> None:
    """Raises Preempted once SIGTERM has come. To be called where all work is saved.

    A process that runs alone does not ask: SIGTERM ends it at once.
    """
    if jax.process_count() > 1 and _others_stop():
        raise Preempted(f"{name}: SIGTERM came, what is done is saved; run the same command to go on")


def until_sigterm(parts: Iterable, name: str) -> Iterator:
    """Gives the parts until SIGTERM comes: see `stop_after_sigterm`.

    A part has to be saved before the next one is asked for.
    """
    for part in parts:
        yield part
        stop_after_sigterm(name)


@contextlib.contextmanager
def sigterm_asks() -> Iterator[Callable[[], bool]]:
    """Catches SIGTERM while the block runs.

    Only the main thread can handle signals: in another thread SIGTERM does what it did
    before. Where several processes run, a service of JAX hears SIGTERM in any of them,
    and all stop after the same step.

    Yields:
      () -> whether SIGTERM has come; to be called once per step.
    """
    if jax.process_count() > 1:
        yield _others_stop
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
