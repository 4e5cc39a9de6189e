"""What every main shares: the way from flags to a config, to a run, to one call."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.record import check_writable, is_run, open_made, open_trained, record_config, recorded
from atspeed_jax.runs.stages import StageOptions
from atspeed_jax.training.preemption import RESTART, Preempted
from atspeed_jax.training.sharding import fitting_mesh
from atspeed_jax.utils.distributed import ProcessError, check_same, check_shared, is_writer, join
from launch import command_line
from launch.compilation_cache import keep_programs
from launch.config import load
from launch.errors import NotOfOrbax, one_line
from launch.sigterm import Kept, measurements_kept, sigterm_says, stages_kept

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags that every main has."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file of a new run, such as configs/tiny.py; --config.x.y=... changes a field."
    )
    flags.DEFINE_string(
        "workdir", None, "Directory of a run. A run that exists is opened by its record; a new one needs --config."
    )
    flags.DEFINE_string("profile_steps", None, "FIRST:LAST: steps of training whose trace is written to STAGE/profile.")
    flags.DEFINE_bool("distributed", False, "This is one of several processes; SLURM, GKE or a TPU VM says which one.")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no cluster says that.")
    flags.DEFINE_integer("num_processes", None, "With --coordinator: number of processes.", 1, 1_000_000)
    flags.DEFINE_integer("process_id", None, "With --coordinator: number of this process, from 0.", 0, 999_999)
    flags.DEFINE_string(
        "data_dir",
        None,
        "Directory of interactions, for a config that reads one: of launch.ingest, or in a layout of launch/README.md.",
    )


def no_flags() -> None:
    """Defines nothing, for a main that has only the flags of all mains."""


def open_run(*, trains: bool = False, writes: bool = True) -> Run:
    """Opens the run that the flags describe.

    Args:
      trains: whether stages may be made, of a run that --config begins or of one that
        is continued. Otherwise the run is a trained one, opened as recorded; the fields
        decode, evaluate and mesh of the command line say how it is served.
      writes: whether anything is written into its directory.

    Raises:
      ConfigError, DatasetError, WorkdirError: before anything is written.
    """
    workdir, steps = Path(FLAGS.workdir), _steps(FLAGS.profile_steps)
    if trains and not is_run(workdir) and not FLAGS["config"].present:
        raise ConfigError(f"there is no run in {workdir}: give --config=FILE to begin one, such as configs/tiny.py")
    given = given_config() or recorded(workdir)
    check_same(fingerprint(given), "config")
    data_dir = Path(FLAGS.data_dir) if FLAGS.data_dir else None
    Run(given, workdir, data_dir)  # raises before anything is written
    known = is_run(workdir)
    config, serve, chosen = (open_made if trains else open_trained)(workdir, given)
    if writes and known:
        check_writable(workdir)
    if chosen:
        say(f"note: served otherwise than recorded: {', '.join(map(str, chosen))}")
    if known and (mesh := fitting_mesh(given.mesh)) != given.mesh:  # an error for a new run
        say(f"note: the run's mesh does not fit the {jax.device_count()} devices here: {given.mesh} -> {mesh}")
        config = dataclasses.replace(config, mesh=mesh)
        serve = serve and dataclasses.replace(serve, mesh=mesh)
    run = Run(config, workdir, data_dir, serve=serve)
    record = functools.partial(record_config, workdir, given) if serve is None else StageOptions.on_begin
    run.options = StageOptions(profile_steps=steps, on_begin=record)
    check_shared(run.workdir)
    return run


def _steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise ConfigError(f"--profile_steps={text}: expected FIRST:LAST, steps counted from 1, such as 10:12")
    return int(first), int(last)


def given_fields() -> ConfigDict | None:
    """Returns the fields of --config with its overrides, None without that flag."""
    return FLAGS.config if FLAGS["config"].present else None


def given_config() -> ExperimentConfig | None:
    """Returns the config of --config with its overrides, None without that flag.

    Raises:
      ConfigError: for a field that is unknown, missing or unusable.
    """
    fields = given_fields()
    return None if fields is None else load(fields, ExperimentConfig)


def say(text: str) -> None:
    """Prints a line above the progress bars, in the first process alone."""
    if is_writer():
        tqdm.write(text)


def join_others(several: bool) -> None:
    """Joins the other processes of this run, if a flag says that it has several.

    The scripts of launch/pods always give such a flag, even for one process.

    Args:
      several: whether several processes can do this together.

    Raises:
      ProcessError: if the others do not come, or `several` is False and others are
        here.
    """
    others = FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id
    if not (FLAGS.distributed or any(given is not None for given in others)):
        return
    join(*others)
    if not several and jax.process_count() > 1:
        raise ProcessError(
            f"{Path(sys.argv[0]).stem} works in one process, but {jax.process_count()} were started: "
            "start it once, on one host (NODES=1 with launch/pods/slurm.sh)"
        )


def main(
    call: Callable[[Run], Any],
    define: Callable[[], None] = no_flags,
    *,
    trains: bool = False,
    several: bool = True,
    kept: Kept = measurements_kept,
) -> None:
    """Runs a main on the run that the flags describe.

    Args:
      call: what is done with the run.
      define: see `start`.
      trains: see `open_run`.
      several: see `start`.
      kept: see `start`. A main that trains keeps finished stages.
    """
    kept = stages_kept if trains else kept
    start(lambda: call(open_run(trains=trains)), define, required=("workdir",), several=several, kept=kept)


def start(
    call: Callable[[], Any],
    define: Callable[[], None] = no_flags,
    *,
    required: tuple[str, ...],
    several: bool = False,
    first: Callable[[], None] = lambda: None,
    kept: Kept | None = None,
) -> None:
    """Parses the flags and runs a main.

    A user's mistake ends in one clear line; --verbosity=1 shows the traceback as well.
    Exit code 75 means that SIGTERM stopped the main and that what it did is saved: the
    same command goes on.

    Args:
      call: what the main does.
      define: defines the flags of this main alone.
      required: flags that must be given.
      several: whether several processes can do this together.
      first: called before anything touches a device or joins other processes.
      kept: what is saved when SIGTERM comes, see `sigterm_says`.
    """
    define_flags()
    define()

    def body(_):
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
            logging.get_absl_logger().addFilter(NotOfOrbax())
        try:
            first()
            join_others(several)
            keep_programs()
            with sigterm_says(kept):
                call()
        except Preempted as stop:
            print(stop, file=sys.stderr)
            raise SystemExit(RESTART) from stop
        except Exception as error:
            line = one_line(error)
            if line is None:
                raise
            logging.debug("the error came from here", exc_info=True)
            raise SystemExit(line) from error

    app.run(body, flags_parser=command_line.parser(required))
