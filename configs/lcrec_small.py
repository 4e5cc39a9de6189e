"""A small target and its draft on real data in the AtSpeed text layout; Beauty is the documented case.

    python -m launch.pipeline --config=configs/lcrec_small.py --workdir=runs/beauty --data_dir=PATH/TO/beauty

Nothing here knows Beauty: any directory of this layout with ids of 4 codes runs; for other lengths set
--config.decode.widths and --config.evaluate.grid_widths (one entry per level but the last).

Lab note, Beauty, 2026-11-21, 2-core AMD EPYC, jax 0.10.2, GLIBC_TUNABLES=glibc.malloc.hugetlb=1, the command above
(stopped by XLA in the latencies and started again; `programs.forget_programs` is the mend): 52 min 17 s + 9 min 14 s.

    target    22,464 steps, 20 min. All 4,295 validation users, Recall@10 / NDCG@10 at steps 5,616, 11,232, 16,848
      (kept) and 22,464: 0.0183 / 0.0102, 0.0186 / 0.0110, 0.0235 / 0.0134, 0.0221 / 0.0132. Test: 0.0175 / 0.0106
    teacher   1 min 47 s
    draft     SFT 52 s, alignment 15 min 29 s; target calls of 500 validation users at steps 7,272 and 14,544: 1.366,
      1.336
    evaluate  21 min; no mismatched user in 35 rows; the draft's calls at K = 20 / 5 / 1, all test users: 1.320 / 1.022
      / 1.006

The target once more, on ONE core (taskset), so that it rounds otherwise: 0.0197 / 0.0109, 0.0204 / 0.0119, 0.0231 /
0.0135, 0.0244 / 0.0138 (kept); test 0.0201 / 0.0120. Alignment to it, one core each, calls of 500 validation users
(of all 4,295): 8 epochs 1.472 (1.476), 12 epochs 1.462 (1.451); with --config.align.coverage_weight=4.0 1.548 after
4,848 steps (8 epochs with weight 1: 1.530), with 4 or 6 prompts per user 1.538 after 5,100: no gain from either.
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
                epochs=48.0,
                batch_size=32,
                learning_rate=1.5e-3,
                average=0.9995,
                shuffle=0.5,
                evaluations=6,
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
