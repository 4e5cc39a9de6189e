"""Recommends the K best next items to every user in a file.

python -m launch.recommend --workdir=DIR --input=users.jsonl --output=recs.jsonl [--k=20] [--exclude_seen]
python -m launch.recommend --model=HF_DIR --index=x.index.json --input=users.jsonl --output=recs.jsonl

--checkpoint is another name of --workdir. Fields such as --config.decode.widths=... say
how the run is served. An interrupted run continues with the same command.
--model is a directory of transformers whose tokenizer knows the codes of the index.
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.serving.list_file import OUTPUT_HELP, claimed_output
from atspeed_jax.serving.recommend import recommend
from atspeed_jax.serving.user_file import INPUT_HELP, UserFile
from atspeed_jax.utils.distributed import check_same, is_writer
from launch import catalogs, hugging_face
from launch.serving import DRAFTER_HELP, by_chunk, served
from launch.sigterm import lists_kept
from launch.stage import FLAGS, say, start

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
    catalogs.define_flags()
    hugging_face.define_flags()


def main() -> None:
    with claimed_output(Path(FLAGS.output)) as output:
        model = served()
        mistakes = FLAGS.on_bad, FLAGS.on_unknown
        file = UserFile(Path(FLAGS.input), model.items.names, *mistakes, output.one_type, model.filters.of)
        total = file.check()
        lists, made_from = model.load()
        check_same(fingerprint(made_from, FLAGS.input, *mistakes, total), "model, flags or number of users")
        with tqdm(total=total, unit="user", desc="recommend", disable=not is_writer()) as bar:
            users = catalogs.compared(file.users(say), lists, model.own, model.trained, say)
            how = {"chunk": FLAGS.chunk, "fingerprint": made_from, "progress": bar}
            count = recommend(users, by_chunk(lists), output, **how, **model.words)
    say(f"{count} users: {output.path}")


if __name__ == "__main__":
    start(main, define_flags, required=("input", "output"), several=True, kept=lists_kept)
