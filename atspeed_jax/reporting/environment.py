"""Where figures come from: device, versions, command and commit.

The module imports no plotting library, so a decoder of an installed core may use it.
"""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import jax


def machine() -> dict:
    """The devices and the processors of this process."""
    devices = jax.devices()
    return {"device": devices[0].device_kind, "device_count": len(devices), "cpu_count": os.cpu_count()}


def environment() -> dict:
    """Where the figures come from: versions, device, and git revision."""
    return {"jax": jax.__version__, **machine(), "git": git_revision(Path(__file__).parent)}


def what_was_run() -> dict:
    """The command of this process, when, and with which versions."""
    main = Path(sys.argv[0])
    # `python -m launch.NAME` shows itself as the path of its file.
    program = f"python -m {main.parent.name}.{main.stem}" if main.suffix == ".py" else main.name
    versions = {name: _version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {
        "command": " ".join([program, *map(shlex.quote, sys.argv[1:])]),
        "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "commit": git_revision(Path(__file__).parent),
    }


def _version(package: str) -> str | None:
    """Version of an installed package; None for a checkout that is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_revision(directory: Path) -> str | None:
    """The commit of the repository that tracks a directory.

    Returns:
      The hash, with "-dirty" if tracked files have changed; None outside a repository.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    try:
        # An installed copy may lie inside some other repository (a .venv): that one's
        # revision would mislead.
        if not git("ls-files", "--", "."):
            return None
        return git("describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None
