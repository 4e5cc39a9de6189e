"""SIGTERM as a request to save and stop: SLURM, GKE and TPU maintenance send it some seconds before they kill."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import jax
from jax.experimental import multihost_utils

RESTART = 75  # exit code, EX_TEMPFAIL of sysexits.h: run the same command again

# How often this process has asked. JAX's service picks the highest number that any has given, plus one, and waits for
# just that one: steps, which every training counts from its own start, may never come to it.
_ASKED = itertools.count(1)


class Preempted(RuntimeError):
    """Work stopped because it was asked to; all of it is saved."""


def _others_stop() -> bool:
    """Whether SIGTERM has reached one of several processes; all get True at the same question, if all ask alike."""
    return multihost_utils.reached_preemption_sync_point(next(_ASKED))


def stop_after_sigterm(name: str) -> None:
    """Raises Preempted once SIGTERM has come; to be called where what is done is saved.

    One process does not ask: SIGTERM ends it at once.
    """
    if jax.process_count() > 1 and _others_stop():
        raise Preempted(f"{name}: SIGTERM came, what is done is saved; run the same command to go on")


def until_sigterm(parts: Iterable, name: str) -> Iterator:
    """The parts, each of which is saved when the next is asked for; see `stop_after_sigterm`."""
    for part in parts:
        yield part
        stop_after_sigterm(name)


@contextlib.contextmanager
def sigterm_asks() -> Iterator[Callable[[], bool]]:
    """While it lasts SIGTERM does not end the process; the function it gives says, once a step, whether one has come.

    Only the main thread can handle signals: in any other, and before and after, SIGTERM does what it did. Where several
    processes run, JAX's own service hears it in whichever it reaches, and all of them stop after the same step.
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
