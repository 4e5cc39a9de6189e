"""A small target and its draft on real data in the AtSpeed text layout; Beauty is the documented case.

    python -m launch.pipeline --config=configs/lcrec_small.py --workdir=runs/beauty --data_dir=PATH/TO/beauty

Nothing here knows Beauty: any directory of this layout with ids of 4 codes runs; for other lengths set
--config.decode.widths and --config.evaluate.grid_widths (one entry per level but the last).

Lab note, Beauty, 2026-11-21, 2-core AMD EPYC, jax 0.10.2, GLIBC_TUNABLES=glibc.malloc.hugetlb=1, with the flags above:

    target    22,464 steps, 44 min 40 s on ONE core (two runs at a time; with 26 epochs, both cores and without the
      huge pages: 19 min 58 s). All 4,295 validation users, Recall@10 / NDCG@10 at steps 5,616, 11,232, 16,848 and
      22,464 (kept): 0.0197 / 0.0109, 0.0204 / 0.0119, 0.0231 / 0.0135, 0.0244 / 0.0138
    teacher, draft   19 min; target calls of 500 validation users at steps 4,848 and 9,696: 1.530, 1.472 (with one
      prompt per user and 6 epochs 1.570, 5 min 9 s of alignment)
    evaluate  the 9 rows of all users in 15 min, the last of them with a test run beside it; no mismatched user. Test:
      Recall@10 0.0201, NDCG@10 0.0120 (seen items kept); the draft's calls at K = 20 / 5 / 1: 1.509 / 1.062 / 1.013
"""

import ml_collections
from ml_collections import config_dict

TRAIN = dict(
    batch_size=64,
    buckets=(2, 4, 6, 9, 13, 21),
    warmup_steps=200,
    weight_decay=0.1,
    clip_norm=1.0,
    b1=0.9,
    b2=0.98,
    average=0.0,
    shuffle=0.0,
    patience=4,
    checkpoint_every=400,
    log_every=20,
    valid_users=1500,
    seed=0,
)
ALIGN = TRAIN | dict(
    epochs=12.0,
    batch_size=32,
    buckets=(3, 5, 8, 20),
    learning_rate=2e-3,
    warmup_steps=100,
    average=0.99,
    weight_decay=0.01,
    evaluations=2,
    patience=0,
    valid_users=500,
)
MODEL = dict(
    rope_theta=10_000.0, norm_eps=1e-6, tied_embeddings=True, heads=4, kv_heads=4, dtype="float32", remat=False
)


def get_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        dict(
            name="lcrec_small",
            data=dict(source="atspeed", history=20, synthetic=None),
            target=MODEL
            | dict(hidden_size=128, intermediate_size=512, layers=4, head_dim=32, dropout=0.1, tied_embeddings=False),
            draft=MODEL | dict(hidden_size=64, intermediate_size=224, layers=2, head_dim=16, dropout=0.0),
            train_target=TRAIN
            | dict(
                epochs=36.0,
                batch_size=32,
                learning_rate=1.5e-3,
                average=0.999,
                shuffle=0.5,
                evaluations=4,
                patience=0,
                valid_users=5000,
            ),
            train_draft=TRAIN | dict(epochs=4.0, batch_size=32, learning_rate=2e-3, evaluations=4),
            align=dict(
                objective="coverage",
                alpha=0.95,
                temperature=1.0,
                top_k=20,
                density_weight=1.0,
                coverage_weight=1.0,
                score_norm="vocab",
            ),
            train_align=ALIGN,
            teacher=dict(beams=20, prompts=2, batch_size=128, buckets=(3, 5, 8, 20), log_probs=True),
            decode=dict(widths=("all", 64, 96), gamma=3, score_norm="vocab", budget=config_dict.placeholder(int)),
            evaluate=dict(
                list_size=20,
                beams=(20, 5, 1),
                grid_beams=(3, 10),
                grid_widths=((40, 40, 40), ("all", 96, 128)),
                grid_users=300,
                drafters=("draft", "popularity"),
                users=config_dict.placeholder(int),  # None: all test users
                batch_size=64,
                buckets=(8, 20),
                latency_users=200,
                latency_repeats=3,
                bootstrap_samples=2000,
                seed=0,
            ),
        )
    )
