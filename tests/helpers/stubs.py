"""Commands that only record how they were called, in the place of schedulers that a test must never reach."""

import shutil
from pathlib import Path

SYSTEM = "bash cat dirname env flock grep head mkdir rmdir sed seq sleep"


def stub_path(place: Path) -> Path:
    """A directory for PATH with nothing but what the scripts of launch/pods need of the system."""
    path = place / "bin"
    for directory in (path, place / "calls", place / "codes"):
        directory.mkdir(parents=True)
    for name in SYSTEM.split():
        (path / name).symlink_to(shutil.which(name))
    return path


def stub(place: Path, name: str, body: str = ":") -> Path:
    """Makes the command `name` in the directory of stub_path.

    It appends "call" and its arguments, a line each, to calls/NAME, then runs the shell command `body`, which knows the
    last argument ($last), and exits with `code`, the next line of codes/NAME if there is one.
    """
    script = f"""#!/usr/bin/env bash
printf '%s\\n' call "$@" >>"{place}/calls/{name}"
for last; do :; done
codes="{place}/codes/{name}" code=''
if [[ -s $codes ]]; then code=$(head -n 1 "$codes"); sed -i 1d "$codes"; fi
{body}
exit "${{code:-0}}"
"""
    path = place / "bin" / name
    path.write_text(script)
    path.chmod(0o755)
    return path
