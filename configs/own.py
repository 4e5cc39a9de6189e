"""A target and its draft for your interactions, after launch.ingest and launch.build_ids.

    python -m launch.pipeline --config=configs/own.py:4,small --data_dir=DATA --workdir=runs/my

Behind the colon stand the number of codes of an id and a size; and the number of ids, as in 3,small,12, of a catalog
that has fewer than 20. `python -m launch.own` chooses them, and runs all commands.

    small     up to 50,000 interactions: minutes on 2 cores; the models of configs/quickstart.py
    medium    up to 3 million: about half an hour per 100,000 interactions on 2 cores; the models of
              configs/lcrec_small.py, where measured figures stand
    large     more: for accelerators; a target of 25 M parameters in bfloat16

What else to change first: data.history (newest items that a model reads), train_target.epochs, and decode.widths with
one entry per code but the last.
"""

import re

import ml_collections

from configs import lcrec_small, quickstart

SIZES = {"small": 50_000, "medium": 3_000_000, "large": 10**12}  # interactions up to which a size is chosen


MOST = 20  # items of a list that is measured


def options_for(interactions: int, levels: int, ids: int) -> str:
    """What stands behind the colon for data of this size, and `ids` ids of `levels` codes."""
    size = next(size for size, most in SIZES.items() if interactions <= most)
    return f"{levels},{size}" + f",{ids}" * (ids < MOST)


def get_config(options: str = "4,small") -> ml_collections.ConfigDict:
    given = re.fullmatch(rf"([1-8]),({'|'.join(SIZES)})(?:,([1-9][0-9]{{0,8}}))?", options)
    if given is None:
        raise ValueError(
            f"{options!r}: expected the number of codes of an id, 1 to 8, and one of {', '.join(SIZES)}, as in "
            f"4,small; and the number of ids if there are fewer than {MOST}, as in 3,small,12"
        )
    levels, size, ids = given.groups()
    config = quickstart.get_config() if size == "small" else lcrec_small.get_config()
    config.name = "own"
    config.data.update(source="ingested", history=20)
    config.data.synthetic = None
    if size == "small":
        for train in (config.train_target, config.train_draft):
            train.buckets = (5, 9, 21)
        config.train_align.buckets = config.teacher.buckets = config.evaluate.buckets = (8, 20)
        config.train_target.update(epochs=12.0, evaluations=4)
        config.evaluate.update(tune=(20, 5), beams=(20, 5, 1))
    if size == "large":
        config.target.update(hidden_size=512, intermediate_size=1536, layers=8, heads=8, kv_heads=8, head_dim=64)
        config.target.dtype = config.draft.dtype = "bfloat16"
        config.train_target.update(epochs=10.0, batch_size=256, learning_rate=1e-3)
        config.train_draft.update(epochs=1.0, batch_size=256)
        config.train_align.update(epochs=1.0, batch_size=256)
    drafted = int(levels) - 1
    config.decode.update(widths=("all", 64, *(96,) * 6)[:drafted], gamma=max(1, drafted))
    config.evaluate.update(grid_beams=(), grid_widths=(), drafters=("draft",))
    if ids is not None:
        most = min(int(ids), MOST)
        config.teacher.beams, config.align.top_k = min(config.teacher.beams, most), min(config.align.top_k, most)
        for name in ("tune", "beams"):  # K, largest first, each once
            config.evaluate[name] = tuple(sorted({min(beams, most) for beams in config.evaluate[name]}, reverse=True))
    return config
