"""The commands of launch.own."""

import glob
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from atspeed_jax.data.ingested import check_sources
from atspeed_jax.items.data_directory import HISTORIES, INDEX, RECORD
from launch import own_record
from launch.command_line import CommandLineError
from launch.stage import say

_PASSED_ON = {"ingest": "--time=NAME", "build_ids": "--codes=64", "pipeline": "--tune=false"}  # main -> such a flag


def place_of(log: str, workdir: str | None) -> Path:
    """The directory of a run.

    Args:
      log: file of the interactions, or a pattern of files.
      workdir: that the user gave; None for runs/NAME, after the log.

    Raises:
      CommandLineError: a log that no directory can be named after.
    """
    if workdir is not None:
        return Path(workdir)
    name = Path(log).name.partition(".")[0]
    several = not Path(log).is_file() and ("," in log or glob.has_magic(log))
    if several or not re.fullmatch(r"\w[\w +-]*", name):
        raise CommandLineError(f"--data={log} gives the run no name: give --workdir=runs/NAME too")
    return Path("runs", name)


def run(main: str, *given: str) -> None:
    """Prints a command and runs it; ends this program as the command ends if it fails."""
    words = [f"launch.{main}", *given]
    say(f"$ python -m {shlex.join(words)}")
    code = subprocess.run([sys.executable, "-m", *words], check=False).returncode
    if code == 1 and main in _PASSED_ON:
        say(f"A flag of launch.{main} stands behind --{main}= here: --{main}={_PASSED_ON[main]}")
    if code:
        raise SystemExit(code)


def make_data(data: Path, workdir: Path, sources: Sequence[str], given: Sequence[str]) -> None:
    """Makes the data directory of a log, if it is not there.

    Args:
      data: directory to make.
      workdir: of the run, for a message.
      sources: the log, and the item file if there is one.
      given: flags for launch.ingest.
    """
    if (data / RECORD).exists():
        check_sources(data, sources)
        own_record.check_flags(data, "ingest", given)
        say(f"{data} is there already and is used; remove it, and {workdir}, to begin anew")
        return
    named = [f"--{name}={source}" for name, source in zip(("interactions", "items"), sources, strict=False)]
    run("ingest", *named, f"--output={data}", *given)
    own_record.remember(data, ingest=list(given))


def make_ids(data: Path, given: Sequence[str]) -> None:
    """Gives the items of a data directory their ids by the flags `given`, if they have none."""
    if (data / INDEX).exists():
        own_record.check_flags(data, "build_ids", given)
        return
    run("build_ids", f"--data_dir={data}", *given)
    own_record.remember(data, build_ids=list(given))


def make_lists(data: Path, workdir: Path, lists: Path, k: int, *, tunes: bool) -> None:
    """Writes `lists` of `k` items for all users of the log; `tunes` first, if it pays."""
    if tunes:
        run("tune_decoder", f"--workdir={workdir}", f"--beams={k}", "--batch_sizes=1,64", "--drafters=draft")
    run("recommend", f"--workdir={workdir}", f"--input={data / HISTORIES}", f"--output={lists}", f"--k={k}")
    own_record.remember(data, k=k)
