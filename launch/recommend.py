"""The K best next items of every user in a file.

python -m launch.recommend --workdir=DIR --input=users.jsonl --output=recs.jsonl [--k=20] [--exclude_seen]

--checkpoint is another name of --workdir. --config.decode.widths=... and the like say how the run is served.
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from atspeed_jax.evaluation.decoders import strict
from atspeed_jax.evaluation.recommend import lists_of, recommend
from atspeed_jax.evaluation.tune import tuned_setting
from atspeed_jax.evaluation.user_file import count_users, read_users
from atspeed_jax.pipeline import fingerprint
from atspeed_jax.processes import check_same, check_shared, is_writer
from atspeed_jax.training.checkpoint import fingerprint_of
from launch.stage import open_run, say, start

flags.DEFINE_alias("checkpoint", "workdir")
_INPUT = flags.DEFINE_string("input", None, 'JSON lines {"user": ..., "items": [...]}, oldest first, or parquet.')
_OUTPUT = flags.DEFINE_string("output", None, "JSON lines or parquet to write; an interrupted run goes on.")
_K = flags.DEFINE_integer("k", 20, "Items per user.", lower_bound=1)
_DRAFTERS = ["draft", "popularity", "none", "tuned"]
_DRAFTER = flags.DEFINE_enum("drafter", "draft", _DRAFTERS, "none: plain beam search. tuned: see launch.tune_decoder.")
_EXCLUDE_SEEN = flags.DEFINE_bool("exclude_seen", False, "Never recommend an item of the user's history.")
_ON_BAD = flags.DEFINE_enum("on_bad", "error", ["error", "skip"], "What a line that is no user does.")
_ON_UNKNOWN = flags.DEFINE_enum("on_unknown", "error", ["error", "skip"], "What an unknown item of a history does.")
_CHUNK = flags.DEFINE_integer("chunk", 4096, "Users decoded and written at a time.", lower_bound=1)


def main() -> None:
    run, path, output = open_run(writes=False), Path(_INPUT.value), Path(_OUTPUT.value)
    decode, evaluate = run.serve.decode, run.serve.evaluate
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
    mistakes = {"on_bad": _ON_BAD.value, "on_unknown": _ON_UNKNOWN.value}
    users, total = read_users(path, run.dataset.catalog.items, **mistakes, report=say), count_users(path)
    models = fingerprint_of(run.target_params), fingerprint_of(draft_params)
    made_from = fingerprint(*models, setting, _EXCLUDE_SEEN.value, shapes)
    check_same(fingerprint(made_from, mistakes, total), "model, flags or number of users")
    check_shared(output.parent)
    with tqdm(total=total, unit="user", desc="recommend", disable=not is_writer()) as bar:
        count = recommend(users, lists, output, chunk=_CHUNK.value, fingerprint=made_from, progress=bar)
    say(f"{count} users: {output}")


if __name__ == "__main__":
    start(main, required=("workdir", "input", "output"), several=True)
