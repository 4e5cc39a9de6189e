"""The K best next items of every user in a file.

python -m launch.recommend --checkpoint=WORKDIR --input=users.jsonl --output=recs.jsonl [--k=20] [--exclude_seen]

The config is the one the run was begun with; a stage made with another one later needs it again: --config=...
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from atspeed_jax.evaluation.decoders import strict
from atspeed_jax.evaluation.recommend import lists_of, recommend
from atspeed_jax.evaluation.tune import tuned_setting
from atspeed_jax.evaluation.user_file import count_users, read_users
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
_ON_UNKNOWN = flags.DEFINE_enum("on_unknown", "error", ["error", "skip"], "What an unknown item of a history does.")
_CHUNK = flags.DEFINE_integer("chunk", 4096, "Users decoded and written at a time.", lower_bound=1)


def main() -> None:
    workdir, path, output = (Path(flag.value) for flag in (_CHECKPOINT, _INPUT, _OUTPUT))
    config = given_config() or load(read_marker(workdir / MARKER_FILE), ExperimentConfig)
    run, batch_size = Run(config, workdir, None), config.evaluate.batch_size
    if _DRAFTER.value == "tuned":
        setting = tuned_setting(workdir, _K.value, batch_size, config.decode.score_norm)
    else:
        setting = strict(_DRAFTER.value, _K.value, config.decode)
    draft_params = run.draft_params if setting.drafter == "draft" else None
    shapes = {"history": config.data.history, "buckets": config.evaluate.buckets}
    how = {"batch_size": batch_size, "exclude_seen": _EXCLUDE_SEEN.value}
    lists = lists_of(run.decoders(draft_params), setting, run.dataset, **shapes, **how)
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
    start(main, required=("checkpoint", "input", "output"), several=True)
