"""From your interactions to lists of named items, by five commands, with defaults chosen by size.

python -m launch.own --data=log.csv [--items=items.csv] [--workdir=runs/log] [--k=10]

Prints each command and runs it; given again, it continues. The lists are DIR/recommendations.jsonl.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from absl import flags

from atspeed_jax.data.ingested import check_sources, size_of
from atspeed_jax.items.data_directory import HISTORIES, INDEX, RECORD
from configs.own import options_for
from launch.sigterm import nothing_kept
from launch.stage import FLAGS, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_string("data", None, "File of interactions, with a line per event: see launch.ingest.")
    flags.DEFINE_string("items", None, "File of items with their titles; without it, ids come of the interactions.")
    flags.DEFINE_integer("k", 10, "Items per user.", lower_bound=1, upper_bound=10_000)
    flags.DEFINE_multi_string("ingest", [], "A flag for launch.ingest, such as --ingest=--core=2.")
    flags.DEFINE_multi_string("build_ids", [], "A flag for launch.build_ids, such as --build_ids=--codes=64.")
    flags.DEFINE_multi_string("pipeline", [], "A flag for launch.pipeline, such as --pipeline=--tune=false.")


def run(main: str, *given: str) -> None:
    """Prints a command and runs it; ends this program as the command ends if it fails."""
    words = [f"launch.{main}", *given]
    say(f"$ python -m {shlex.join(words)}")
    if code := subprocess.run([sys.executable, "-m", *words], check=False).returncode:
        raise SystemExit(code)


def own() -> None:
    workdir = Path(FLAGS.workdir or Path("runs", Path(FLAGS.data).name.partition(".")[0]))
    data, lists = workdir.with_name(f"{workdir.name}_data"), workdir / "recommendations.jsonl"
    of_data, of_run = f"--data_dir={data}", f"--workdir={workdir}"
    if (data / RECORD).exists():
        check_sources(data, map(Path, filter(None, (FLAGS.data, FLAGS.items))))
        say(f"{data} is there already and is used; remove it, and {workdir}, to begin anew")
    else:
        given = [f"--interactions={FLAGS.data}", *([f"--items={FLAGS.items}"] if FLAGS.items else [])]
        run("ingest", *given, f"--output={data}", *FLAGS.ingest)
    if not (data / INDEX).exists():
        run("build_ids", of_data, *FLAGS.build_ids)
    run("pipeline", f"--config=configs/own.py:{options_for(*size_of(data))}", of_data, of_run, *FLAGS.pipeline)
    if not lists.exists():
        run("tune_decoder", of_run, f"--beams={FLAGS.k}", "--batch_sizes=1,64", "--drafters=draft")
        run("recommend", of_run, f"--input={data / HISTORIES}", f"--output={lists}", f"--k={FLAGS.k}")
    say(f"lists of named items: {lists}")


if __name__ == "__main__":
    start(own, define_flags, required=("data",), kept=nothing_kept)
