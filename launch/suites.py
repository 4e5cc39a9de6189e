"""The suites of launch.benchmark that measure ours alone: the trie, and parts of a trained run."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

from absl import flags

from atspeed_jax.benchmarks.alignment import alignment_steps
from atspeed_jax.benchmarks.input import input_speed
from atspeed_jax.benchmarks.overhead import overhead_of_modes
from atspeed_jax.benchmarks.trie import TrieBenchmark, measure_build, measure_steps
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.utils.ranges import Range
from launch.command_line import define_numbers
from launch.stage import FLAGS, open_run


def define_flags() -> None:
    """Defines the flags of these suites."""
    define_numbers(
        "sizes", "10000,100000,1000000,10000000", Annotated[int, Range(1, 1_000_000_000)], "Items of each trie."
    )
    flags.DEFINE_integer("codes", 2048, "Codes per level.", lower_bound=2, upper_bound=1_000_000)
    flags.DEFINE_integer("beams", 20, "K of the overhead suite.", lower_bound=1, upper_bound=10_000)
    flags.DEFINE_integer("users", 100, "Validation users of the overhead suite.", 1, 1_000_000_000)


def trie_rows(_: Path) -> list[dict]:
    config = TrieBenchmark(codes=FLAGS.codes)
    processes = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    with tempfile.TemporaryDirectory() as place, processes as fresh:
        kept = [Path(place) / str(number) for number in range(len(FLAGS.sizes))]
        made = [fresh.submit(measure_build, config, *one).result() for one in zip(FLAGS.sizes, kept, strict=True)]
        steps = fresh.submit(measure_steps, config, kept).result()
    return [build | step for build, step in zip(made, steps, strict=True)]


def trained_run() -> Run:
    if not FLAGS["workdir"].present:
        raise ValueError("this suite measures a trained run: give --workdir")
    return open_run(writes=False)


def alignment_rows(_: Path) -> list[dict]:
    run = trained_run()
    batches = run.alignment_batches((run.config.data.history,))  # of one shape
    models = run.draft_model, run.draft_params, run.tree_context
    return alignment_steps(*models, [batches[number] for number in range(8)], repeats=3)


def input_rows(_: Path) -> list[dict]:
    return [input_speed(trained_run(), batches=200, steps=60)]


def overhead_rows(_: Path) -> list[dict]:
    run = trained_run()
    serve, shared = run.serve, {"history": run.config.data.history, "beams": FLAGS.beams, "users": FLAGS.users}
    return overhead_of_modes(run.decoders(run.draft_params), run.dataset, serve.decode, serve.evaluate, **shared)
