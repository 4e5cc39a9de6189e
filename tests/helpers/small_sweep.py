"""A sweep of the small pipeline: two objectives, one seed."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    measure = dict(
        beams=(3,),
        main_beams=(),
        drafter="draft",
        norms=("vocab",),
        modes=("strict",),
        tolerances=(),
        budgets=(),
        temperature=1.0,
        seeds=1,
        widths=(("all", 10),),
    )
    runs = dict(kd=dict(align=dict(objective="tree_kd")), words=dict(align=dict(objective="word_kd")))
    return ml_collections.ConfigDict(
        dict(
            base="tests/helpers/small.py",
            common=dict(train_align=dict(epochs=0.5)),
            runs=runs,
            seeds=(0,),
            seeded=("train_draft", "train_align"),
            reference="words",
            measure=(measure,),
        )
    )


def made(config: ml_collections.ConfigDict | None = None) -> tuple:
    """(settings, trials kd_0 and words_0), or those of another config."""
    # As a config file this one needs none of them.
    from atspeed_jax.sweeps.trials import trials
    from launch.config import plain
    from launch.given_sweep import base_fields

    return trials(plain(get_config() if config is None else config), base_fields)


def row(run: str, seed: int = 0, calls: float = 1.0, target: str = "abc") -> dict:
    """A row of sweep.json, as if measured on two users."""
    return {
        "run": run,
        "objective": "tree_kd",
        "seed": seed,
        "target_fingerprint": target,
        "K": 3,
        "mode": "strict",
        "constraint": "trie",
        "score_norm": "vocab",
        "widths": ["all", 10],
        "budget": None,
        "tolerance": 0.0,
        "temperature": 1.0,
        "users": 2,
        "target_calls_mean": calls,
        "coverage_by_level": [1.0, None],
        "calls_by_user": [calls, calls],
        "overlap_with_exact": 1.0,
        "recall@K": 0.5,
        "ndcg@K": 0.25,
    }
