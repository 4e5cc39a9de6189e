"""Helpers for several processes that run one program on one mesh.

This is JAX's multi-controller runtime. With one process the helpers do nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

SRUN_VARIABLE = "SLURM_STEP_NODELIST"  # srun sets it; a job without srun has SLURM_JOB_ID only
HEARTBEAT_S = 30  # a process that is silent for longer counts as dead, and the others end


class ProcessError(ValueError):
    """Processes that do not meet, or differ in config, files or directory."""


def join(coordinator: str | None, count: int | None, number: int | None) -> None:
    """Joins the other processes of this run. Call it before anything touches a device.

    Without arguments the environment of SLURM, GKE or a TPU VM supplies them.

    Args:
      coordinator: HOST:PORT of process 0.
      count: number of processes.
      number: number of this process, from 0.

    Raises:
      ProcessError: the arguments are incomplete or wrong, or the processes do not meet.
    """
    missing = [one is None for one in (coordinator, count, number)]
    if any(missing) and not all(missing):
        raise ProcessError(
            f"coordinator={coordinator!r}, {count} processes, this one {number}: give --coordinator, --num_processes "
            "and --process_id together, or none of them where SLURM, GKE or a TPU VM says so"
        )
    if count is not None and number is not None and not 0 <= number < count:
        raise ProcessError(f"process {number} of {count}: expected 0..{count - 1}")
    if coordinator is not None and not re.fullmatch(r".+:[0-9]+", coordinator):
        raise ProcessError(f"--coordinator={coordinator}: expected HOST:PORT, such as host:8476")
    before = signal.getsignal(signal.SIGTERM)
    try:
        if coordinator is not None and number == 0:
            _check_free(int(coordinator.rpartition(":")[2]))
        jax.distributed.initialize(
            coordinator,
            count,
            number,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=2 * HEARTBEAT_S,
        )
    except (RuntimeError, ValueError, OSError, OverflowError) as error:
        job = os.environ.get("SLURM_JOB_ID")
        if coordinator is None and job is not None and SRUN_VARIABLE not in os.environ:
            raise ProcessError(
                f"this process is in SLURM job {job}, but srun did not start it, and srun says which of the processes "
                "it is: put srun in front of the command, or submit it with launch/pods/slurm.sh"
            ) from error
        who = "this process" if number is None else f"process {number} of {count}"
        raise ProcessError(
            f"{who} did not join at {coordinator or 'the address the cluster gives'} ({error}): "
            "is its port free there, and was every process started?"
        ) from error
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
        # JAX's handler only records the signal, so that several processes can agree on
        # it. A single process ends at once.
        signal.signal(signal.SIGTERM, before)


def _check_free(port: int) -> None:
    """Raises OSError if the port of this host is in use.

    JAX's server may end the process without a message if it is.
    """
    dual = socket.has_dualstack_ipv6()
    socket.create_server(("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual).close()


def is_writer() -> bool:
    """Tells whether this process writes logs, reports and files; the first one does."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has called it with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(look: Callable[[], bool]) -> bool:
    """Returns to every process what `look` returns in the first process.

    A file may exist for one process and not yet for another. Only the first process
    looks: a shared file system may keep a negative answer in its cache.
    """
    return bool(first_says(look))


def first_says(look: Callable[[], int]) -> int:
    """Returns to every process the number that `look` returns in the first one."""
    if jax.process_count() == 1:
        return look()
    return int(multihost_utils.broadcast_one_to_all(np.int64(look() if is_writer() else 0)))


def gather(tree):
    """Copies a tree to the host as whole NumPy arrays, in every process."""

    def one(x):
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return multihost_utils.process_allgather(x, tiled=True)
        return jax.device_get(x)

    return jax.tree.map(one, tree)


def place(tree, placement: Sharding):
    """Places every leaf of a tree on devices; each process moves its part only.

    Args:
      tree: arrays that every process holds as a whole.
      placement: the sharding of every leaf.
    """

    def one(x):
        if jax.process_count() == 1:
            return jax.device_put(x, placement)
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, placement)
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, placement, lambda index: host[index])

    return jax.tree.map(one, tree)


def check_same(value: str, what: str) -> None:
    """Checks that every process has the same text.

    Args:
      value: the text; its first 64 bytes are compared.
      what: its name for the message, such as "config".

    Raises:
      ProcessError: a process has another text.
    """
    if jax.process_count() == 1:
        return
    given = np.frombuffer(value.encode()[:64].ljust(64), np.uint8)
    every = multihost_utils.process_allgather(given)
    if strangers := [number for number, other in enumerate(every) if (other != every[0]).any()]:
        raise ProcessError(
            f"{what} of process {strangers[0]} is not that of process 0: start every process with the same files, "
            "flags and versions"
        )


def check_shared(directory: Path) -> None:
    """Checks that every process sees this directory.

    Raises:
      ProcessError: a process does not see what process 0 writes into the directory.
    """
    if jax.process_count() == 1:
        return
    token = int(multihost_utils.broadcast_one_to_all(np.int64(secrets.randbits(31))))
    probe = directory / f".shared-{token}"
    if is_writer():
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
    barrier("shared directory written")
    seen = multihost_utils.process_allgather(np.bool_(probe.exists()))
    if is_writer():
        probe.unlink()
    if blind := np.flatnonzero(~seen).tolist():
        raise ProcessError(
            f"process {blind[0]} does not see {directory} as process 0 does: it must be on storage that all hosts share"
        )
