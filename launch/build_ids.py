"""Gives the items of a data directory their ids.

python -m launch.build_ids --data_dir=DATA [--method=kmeans] [--levels=4] [--codes=256]
    [--vectors=text+cooccurrence] [--collisions=move]

DATA holds items.parquet and interactions.parquet. Written are index.parquet and
codebooks.safetensors. Without --levels and --codes the size of the catalog decides.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.ids.build import build, check_new, read_catalog, write
from atspeed_jax.ids.settings import COLLISIONS, MAX_CODEBOOK, METHODS, IdsConfig, default_size
from atspeed_jax.items.catalog import MAX_LENGTH
from launch.stage import FLAGS, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_enum("method", "kmeans", METHODS, "How vectors become codes.")
    flags.DEFINE_integer("levels", None, "Codes of an id.", 1, MAX_LENGTH)
    flags.DEFINE_integer("codes", None, "Codes per level.", 2, MAX_CODEBOOK)
    flags.DEFINE_enum("collisions", "move", COLLISIONS, "What becomes of items with equal codes.")
    vectors = "auto, vector (a column of items.parquet), text, cooccurrence, text+cooccurrence, or a file."
    flags.DEFINE_string("vectors", "auto", f"Of the items: {vectors}")
    flags.DEFINE_string("text", "auto", "Vectors of texts: auto, tfidf, or a model of sentence-transformers.")
    flags.DEFINE_integer("dimensions", 64, "Of the vectors of texts and of co-occurrence.", 1, 4_096)
    flags.DEFINE_integer("seed", 0, "Of everything.", 0, 2**31 - 1)
    flags.DEFINE_bool("overwrite", False, "Replace the ids that DATA has.")


def main() -> None:
    directory = Path(FLAGS.data_dir)
    check_new(directory, FLAGS.overwrite)
    items = read_catalog(directory)
    levels, codes = default_size(len(items))
    names = ("method", "collisions", "vectors", "text", "dimensions", "seed")
    config = IdsConfig(
        levels=FLAGS.levels or levels, codes=FLAGS.codes or codes, **{name: getattr(FLAGS, name) for name in names}
    )
    say(f"{len(items)} items: {config.levels} levels of {config.codes} codes, {config.method}")
    write(directory, build(directory, config, items, say))
    say(f"written: {directory}/index.parquet, {directory}/codebooks.safetensors")


if __name__ == "__main__":
    start(main, define_flags, required=("data_dir",))
