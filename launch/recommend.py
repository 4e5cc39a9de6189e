"""Recommends the K best next items to every user in a file.

python -m launch.recommend --workdir=DIR --input=users.jsonl --output=recs.jsonl [--k=20] [--exclude_seen]

--checkpoint is another name of --workdir. Fields such as --config.decode.widths=... say
how the run is served. An interrupted run continues with the same command.
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.serve import decoders_of, lists_by
from atspeed_jax.serving.list_file import OUTPUT_HELP, claimed_output
from atspeed_jax.serving.recommend import recommend
from atspeed_jax.serving.user_file import INPUT_HELP, UserFile
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.utils.distributed import check_same, is_writer
from launch.serving import DRAFTER_HELP, by_chunk
from launch.sigterm import lists_kept
from launch.stage import FLAGS, open_run, say, start

_DRAFTERS = ["draft", "popularity", "none", "tuned"]


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_alias("checkpoint", "workdir")
    flags.DEFINE_string("input", None, INPUT_HELP)
    flags.DEFINE_string("output", None, OUTPUT_HELP)
    flags.DEFINE_integer("k", 20, "Items per user.", lower_bound=1, upper_bound=10_000)
    flags.DEFINE_enum("drafter", None, _DRAFTERS, DRAFTER_HELP)
    flags.DEFINE_bool("exclude_seen", False, "Never recommend an item of the user's history.")
    flags.DEFINE_enum("on_bad", "error", ["error", "skip"], "What to do with a line that is no user.")
    flags.DEFINE_enum("on_unknown", "error", ["error", "skip"], "What to do with an unknown item of a history.")
    flags.DEFINE_integer("chunk", 4096, "Users decoded and written at a time.", 1, 1_000_000)


def main() -> None:
    with claimed_output(Path(FLAGS.output)) as output:
        run = open_run(writes=False)
        items, one_type = run.dataset.catalog.items, output.one_type
        file = UserFile(Path(FLAGS.input), items, FLAGS.on_bad, FLAGS.on_unknown, one_type)
        total = file.check()
        decoders, setting = decoders_of(run, FLAGS.drafter, FLAGS.k, say)
        shapes = {"history": run.config.data.history, "buckets": run.serve.evaluate.buckets}
        lists = by_chunk(lists_by(run, decoders, setting, exclude_seen=FLAGS.exclude_seen))
        models = run.target_params, run.draft_params if setting.drafter == "draft" else None
        made_from = fingerprint(*map(fingerprint_of, models), setting, FLAGS.exclude_seen, shapes)
        check_same(fingerprint(made_from, file, total), "model, flags or number of users")
        with tqdm(total=total, unit="user", desc="recommend", disable=not is_writer()) as bar:
            count = recommend(file.users(say), lists, output, chunk=FLAGS.chunk, fingerprint=made_from, progress=bar)
    say(f"{count} users: {output.path}")


if __name__ == "__main__":
    start(main, define_flags, required=("workdir", "input", "output"), several=True, kept=lists_kept)
