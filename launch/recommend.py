"""The K best next items of every user in a file.

python -m launch.recommend --checkpoint=WORKDIR --input=users.jsonl --output=recs.jsonl [--k=20] [--exclude_seen]

The config is the one the run was begun with; a stage made with another one later needs it again: --config=...
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from atspeed_jax.evaluation.decoders import strict
from atspeed_jax.evaluation.recommend import count_users, lists_of, read_users, recommend
from atspeed_jax.evaluation.tune import tuned_setting
from atspeed_jax.experiment import ExperimentConfig
from atspeed_jax.pipeline import Run, fingerprint
from atspeed_jax.processes import check_same, check_shared, is_writer
from atspeed_jax.training.checkpoint import fingerprint_of
from launch.config import MARKER_FILE, load, read_marker
from launch.stage import given_config, say, start

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Working directory of a trained run.")
_INPUT = flags.DEFINE_string("input", None, 'JSON lines {"user": ..., "items": [...]}, oldest first, or parquet.')
_OUTPUT = flags.DEFINE_string("output", None, "JSON lines or parquet to write; an interrupted run goes on.")
_K = flags.DEFINE_integer("k", 20, "Items per user.", lower_bound=1)
_DRAFTERS = ["draft", "popularity", "none", "tuned"]
_DRAFTER = flags.DEFINE_enum("drafter", "draft", _DRAFTERS, "none: plain beam search. tuned: see launch.tune_decoder.")
_EXCLUDE_SEEN = flags.DEFINE_bool("exclude_seen", False, "Never recommend an item of the user's history.")
_ON_BAD = flags.DEFINE_enum("on_bad", "error", ["error", "skip"], "What a line that is no user does.")
_CHUNK = flags.DEFINE_integer("chunk", 4096, "Users decoded and written at a time.", lower_bound=1)


def main() -> None:
    config = given_config() or load(read_marker(Path(_CHECKPOINT.value) / MARKER_FILE), ExperimentConfig)
    run = Run(config, Path(_CHECKPOINT.value), None)
    decode, batch_size = config.decode, config.evaluate.batch_size
    if _DRAFTER.value == "tuned":
        setting = tuned_setting(run.workdir, _K.value, batch_size, decode.score_norm)
    else:
        setting = strict(_DRAFTER.value, _K.value, decode)
    draft_params = run.draft_params if setting.drafter == "draft" else None
    shapes = {"history": config.data.history, "buckets": config.evaluate.buckets}
    how = {"batch_size": batch_size, "exclude_seen": _EXCLUDE_SEEN.value}
    lists = lists_of(run.decoders(draft_params), setting, run.dataset, **shapes, **how)
    path, output, total = Path(_INPUT.value), Path(_OUTPUT.value), count_users(Path(_INPUT.value))
    users = read_users(path, run.dataset.catalog.items, _ON_BAD.value, say)
    models = fingerprint_of(run.target_params), fingerprint_of(draft_params)
    made_from = fingerprint(*models, setting, _EXCLUDE_SEEN.value, shapes)
    check_same(fingerprint(made_from, total), "model, flags or number of users")
    check_shared(output.parent)
    with tqdm(total=total, unit="user", desc="recommend", disable=not is_writer()) as bar:
        count = recommend(users, lists, output, chunk=_CHUNK.value, fingerprint=made_from, progress=bar.update)
    say(f"{count} users: {output}")


if __name__ == "__main__":
    start(main, required=("checkpoint", "input", "output"), several=True)
