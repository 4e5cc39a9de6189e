"""From your interactions to lists of named items, by five commands, with defaults chosen by size.

python -m launch.own --data=log.csv [--items=items.csv] [--workdir=runs/log] [--k=10]

Prints each command and runs it; given again, it continues. The lists are DIR/recommendations.jsonl.
"""

from absl import flags

from atspeed_jax.data.ingested import size_of
from configs.own import options_for
from launch import own_commands, own_record
from launch.command_line import CommandLineError
from launch.sigterm import nothing_kept
from launch.stage import FLAGS, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_string("data", None, "File of interactions, with a line per event, or a pattern: see launch.ingest.")
    flags.DEFINE_string("items", None, "File of items with their titles; without it, ids come of the interactions.")
    flags.DEFINE_integer("k", 10, "Items per user.", lower_bound=1, upper_bound=10_000)
    flags.DEFINE_multi_string("ingest", [], "A flag for launch.ingest, such as --ingest=--time=bought.")
    flags.DEFINE_multi_string("build_ids", [], "A flag for launch.build_ids, such as --build_ids=--codes=64.")
    flags.DEFINE_multi_string("pipeline", [], "A flag for launch.pipeline, such as --pipeline=--tune=false.")
    flags.DEFINE_bool("tune", None, "Look for the fastest decoder; by default for more than 50,000 interactions.")


def own() -> None:
    workdir = own_commands.place_of(FLAGS.data, FLAGS.workdir)
    data, lists = workdir.with_name(f"{workdir.name}_data"), workdir / "recommendations.jsonl"
    with own_record.only_one(workdir):
        if lists.exists() and FLAGS["k"].present:
            own_record.check_k(data, lists, FLAGS.k)
        own_commands.make_data(data, workdir, list(filter(None, (FLAGS.data, FLAGS.items))), FLAGS.ingest)
        own_commands.make_ids(data, FLAGS.build_ids)
        interactions, levels, ids = size_of(data)
        if ids < FLAGS.k and FLAGS["k"].present:
            raise CommandLineError(f"--k={FLAGS.k}: the {ids} ids of {data} are fewer; give --k={ids} or less")
        options = options_for(interactions, levels, ids)
        config = f"--config=configs/own.py:{options}"
        own_commands.run("pipeline", config, f"--data_dir={data}", f"--workdir={workdir}", *FLAGS.pipeline)
        if not lists.exists():
            tunes = FLAGS.tune if FLAGS.tune is not None else "small" not in options
            own_commands.make_lists(data, workdir, lists, min(FLAGS.k, ids), tunes=tunes)
    say(f"lists of named items: {lists.absolute()}")


if __name__ == "__main__":
    start(own, define_flags, required=("data",), kept=nothing_kept)
