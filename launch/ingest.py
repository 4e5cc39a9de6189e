"""Reads a raw log and an item file, filters and splits them, and stores them for training.

python -m launch.ingest --interactions=log.csv [--items=items.csv] --output=DATA [--core=5] [--split=time]

Files are CSV, TSV, JSON lines or parquet, gzipped or not, or a pattern of such files.
Users and items keep their names. DATA is written at the end, and never overwritten.
Next: python -m launch.build_ids --data_dir=DATA
"""

from pathlib import Path

from absl import flags

from atspeed_jax.ingest.ingest import ingest
from launch import ingest_flags
from launch.sigterm import nothing_kept
from launch.stage import FLAGS, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_string("interactions", None, "File of the log, with a row per event, or a pattern of files.")
    flags.DEFINE_string("items", None, "File of the items, or a pattern of files.")
    flags.DEFINE_string("output", None, "Directory to write.")
    ingest_flags.define_flags()


def main() -> None:
    config, output = ingest_flags.given_config(), Path(FLAGS.output)
    with ingest_flags.given_way(output) as way:
        record = ingest(FLAGS.interactions, FLAGS.items, output, config, say, way)
    say(f"{record['interactions']:,} interactions: {output}")


if __name__ == "__main__":
    start(main, define_flags, required=("interactions", "output"), kept=nothing_kept)
