"""The mesh of the tests' own devices, and programs that run on several of them in a process of their own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from atspeed_jax.training.sharding import MeshConfig, make_mesh

ROOT = Path(__file__).resolve().parents[2]


def whole_mesh():
    """All devices along `data`."""
    return make_mesh(MeshConfig())


def environment(devices: int) -> dict[str, str]:
    """For a process that sees so many CPU devices; it compiles as this one does."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "helpers")))
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": path}


def report_of(script: str, devices: int, *arguments: str) -> dict:
    """What the script tests/helpers/SCRIPT prints last, a JSON object."""
    command = [sys.executable, str(ROOT / "tests" / "helpers" / script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(devices), cwd=ROOT)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def begin_processes(count: int, command: list[str], devices: int = 1, more: dict | None = None) -> list:
    """`count` processes of this machine, each with so many devices; PORT, COUNT and NUMBER in the command are filled
    in.

    more: of the environment. Returns subprocess.Popen, pipes open.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    begun = []
    for number in range(count):
        filled = {"PORT": str(port), "COUNT": str(count), "NUMBER": str(number)}
        own = [sys.executable, *("".join(filled.get(part, part) for part in word.split("|")) for word in command)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(subprocess.Popen(own, text=True, env=environment(devices) | (more or {}), cwd=ROOT, **pipes))
    return begun
