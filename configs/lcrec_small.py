"""A small target and its draft on real data in the AtSpeed text layout; Beauty is the documented case.

    python -m launch.pipeline --config=configs/lcrec_small.py --workdir=runs/beauty --data_dir=PATH/TO/beauty

Nothing here knows Beauty: any directory of this layout with ids of 4 codes runs; for other lengths set
--config.decode.widths and --config.evaluate.grid_widths (one entry per level but the last).

Lab note, Beauty, 2026-11-21, 2-core Xeon 2.8 GHz, jax 0.10.2; one `launch.pipeline` with the flags above, nothing else
running up to the draft's end:

    target    16,224 steps, 2,377 s. All 4,295 validation users, Recall@10 / NDCG@10 at steps 4,056, 8,112, 12,168 and
      16,224 (kept): 0.0190 / 0.0101, 0.0194 / 0.0106, 0.0196 / 0.0119, 0.0221 / 0.0129
    teacher   about 110 s
    draft     SFT 141 s, alignment 595 s; target calls of 500 validation users at steps 1,818 and 3,636: 1.452, 1.398
    evaluate  27 of its 35 rows; stopped there, the latencies are not measured. Test, all users: Recall@10 0.0182,
      NDCG@10 0.0108 (seen items kept); the draft's calls at K = 20 / 5 / 1: 1.425 / 1.041 / 1.011; no mismatched user
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
    epochs=8.0,
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
            decode=dict(widths=("all", 64, 96), gamma=3, score_norm="vocab"),
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
