"""The K best next items of every user in a file.

python -m launch.recommend --workdir=DIR --input=users.jsonl --output=recs.jsonl [--k=20] [--exclude_seen]

--checkpoint is another name of --workdir. --config.decode.widths=... and the like say how the run is served.
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from atspeed_jax.runs.pipeline import fingerprint
from atspeed_jax.serving.decoders import strict
from atspeed_jax.serving.list_file import OUTPUT_HELP, claimed_output
from atspeed_jax.serving.recommend import lists_of, recommend
from atspeed_jax.serving.tune import tuned_setting
from atspeed_jax.serving.user_file import INPUT_HELP, UserFile
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.utils.distributed import check_same, is_writer
from launch.stage import open_run, say, start

flags.DEFINE_alias("checkpoint", "workdir")
_INPUT = flags.DEFINE_string("input", None, INPUT_HELP)
_OUTPUT = flags.DEFINE_string("output", None, OUTPUT_HELP)
_K = flags.DEFINE_integer("k", 20, "Items per user.", lower_bound=1, upper_bound=10_000)
_DRAFTERS = ["draft", "popularity", "none", "tuned"]
_DRAFTER = flags.DEFINE_enum("drafter", "draft", _DRAFTERS, "none: plain beam search. tuned: see launch.tune_decoder.")
_EXCLUDE_SEEN = flags.DEFINE_bool("exclude_seen", False, "Never recommend an item of the user's history.")
_ON_BAD = flags.DEFINE_enum("on_bad", "error", ["error", "skip"], "What a line that is no user does.")
_ON_UNKNOWN = flags.DEFINE_enum("on_unknown", "error", ["error", "skip"], "What an unknown item of a history does.")
_CHUNK = flags.DEFINE_integer("chunk", 4096, "Users decoded and written at a time.", 1, 1_000_000)


def main() -> None:
    with claimed_output(Path(_OUTPUT.value)) as output:
        run, mistakes = open_run(writes=False), (_ON_BAD.value, _ON_UNKNOWN.value)
        decode, evaluate = run.serve.decode, run.serve.evaluate
        file = UserFile(Path(_INPUT.value), run.dataset.catalog.items, *mistakes, output.one_type)
        total = file.check()
        if _DRAFTER.value == "tuned":
            setting = tuned_setting(run.workdir, _K.value, evaluate.batch_size, decode.score_norm)
        else:
            setting = strict(_DRAFTER.value, _K.value, decode)
        draft_params = run.draft_params if setting.drafter == "draft" else None
        decoders = run.decoders(draft_params)
        setting = decoders.fitted(setting, say)
        shapes = {"history": run.config.data.history, "buckets": evaluate.buckets}
        how = {"batch_size": evaluate.batch_size, "exclude_seen": _EXCLUDE_SEEN.value}
        lists = lists_of(decoders, setting, run.dataset, **shapes, **how)
        models = fingerprint_of(run.target_params), fingerprint_of(draft_params)
        made_from = fingerprint(*models, setting, _EXCLUDE_SEEN.value, shapes)
        check_same(fingerprint(made_from, file, total), "model, flags or number of users")
        with tqdm(total=total, unit="user", desc="recommend", disable=not is_writer()) as bar:
            count = recommend(file.users(say), lists, output, chunk=_CHUNK.value, fingerprint=made_from, progress=bar)
    say(f"{count} users: {output.path}")


if __name__ == "__main__":
    start(main, required=("workdir", "input", "output"), several=True)
