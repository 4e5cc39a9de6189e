"""Gives the items of a data directory their ids, or new items theirs.

python -m launch.build_ids --data_dir=DATA [--method=kmeans] [--levels=4] [--codes=256]
python -m launch.build_ids --data_dir=DATA --assign=items_new.csv --output=grown.parquet

DATA holds items.parquet and interactions.parquet; index.parquet, codebooks.safetensors
and a report are added. --assign gives new items of a file ids by the same codebooks.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.ids.assign import assign
from atspeed_jax.ids.build import build, new_ids, read_catalog, write
from atspeed_jax.ids.health import health
from atspeed_jax.ids.settings import COLLISIONS, MAX_CODEBOOK, METHODS, IdsConfig, default_size
from atspeed_jax.items.catalog import MAX_LENGTH
from atspeed_jax.reporting.ids_report import report_files
from launch.stage import FLAGS, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_enum("method", "kmeans", METHODS, "How vectors become codes.")
    flags.DEFINE_integer("levels", None, "Codes of an id.", 1, MAX_LENGTH)
    flags.DEFINE_integer("codes", None, "Codes per level.", 2, MAX_CODEBOOK)
    flags.DEFINE_enum("collisions", "move", COLLISIONS, "What becomes of items with equal codes.")
    kinds = "auto, vector (a column), text, cooccurrence, text+cooccurrence, or a file (also with --assign)."
    flags.DEFINE_string("vectors", "auto", f"Of the items: {kinds}")
    flags.DEFINE_string("text", "auto", "Vectors of texts: auto, tfidf, or a model of sentence-transformers.")
    flags.DEFINE_integer("dimensions", 64, "Of the vectors of texts and of co-occurrence.", 1, 4_096)
    flags.DEFINE_integer("seed", 0, "Of everything.", 0, 2**31 - 1)
    flags.DEFINE_string("assign", None, "File of items; those that are new get ids.")
    flags.DEFINE_string("index", None, "assign: index of the known items; without it, that of DATA.")
    flags.DEFINE_string("output", None, "assign: index to write.")
    flags.DEFINE_bool("only_listed", False, "assign: leave out known items that the file does not list.")
    flags.DEFINE_bool("overwrite", False, "Replace files that exist.")


def main() -> None:
    directory, new = Path(FLAGS.data_dir), FLAGS.assign
    if new is not None:
        how = {name: getattr(FLAGS, name) for name in ("index", "output", "only_listed", "overwrite")}
        return assign(directory, new, FLAGS.vectors, **how, say=say)
    items = read_catalog(directory)
    levels, codes = default_size(len(items))
    given = {name: getattr(FLAGS, name) for name in ("method", "collisions", "vectors", "text", "dimensions", "seed")}
    config = IdsConfig(levels=FLAGS.levels or levels, codes=FLAGS.codes or codes, **given)
    say(f"{len(items)} items: {config.levels} levels of {config.codes} codes, {config.method}")
    with new_ids(directory, config, FLAGS.overwrite):
        built = build(directory, config, items, say)
        report = report_files(config, built.model.space.kind, health(built))
        write(directory, built, report)
    say(report["ids_report.txt"])
    return say(f"written: {directory}/index.parquet, {directory}/codebooks.safetensors, {directory}/ids_report.html")


if __name__ == "__main__":
    start(main, define_flags, required=("data_dir",))
