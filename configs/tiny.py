"""The whole pipeline in a few minutes on synthetic data: what ./launch/quickstart.sh runs.

About 400 items, 550 users, ids of 4 codes out of 16. Nothing here is meant to be a good recommender; it shows every
stage and proves that speculative and plain beam search give the same lists.
"""

import ml_collections
from ml_collections import config_dict

TRAIN = dict(
    epochs=16.0,
    batch_size=64,
    buckets=(17,),
    learning_rate=3e-3,
    warmup_steps=20,
    weight_decay=0.1,
    clip_norm=1.0,
    b1=0.9,
    b2=0.99,
    average=0.0,
    shuffle=0.0,
    evaluations=4,
    patience=0,
    checkpoint_every=100,
    log_every=10,
    valid_users=200,
    seed=0,
    accumulate=1,
)
MODEL = dict(
    rope_theta=10_000.0,
    norm_eps=1e-6,
    tied_embeddings=True,
    dropout=0.1,
    dtype="float32",
    remat=False,
    remat_policy="nothing",
    precision="highest",
)
SYNTHETIC = dict(
    users=600,
    item_count=400,
    clusters=20,
    dimensions=16,
    spread=0.4,
    twins=6,
    levels=4,
    codes_per_level=16,
    kmeans_iterations=25,
    zipf=0.6,
    events=16,
    drift=0.15,
    noise=0.1,
    days=365,
    active_share=0.5,
    min_rating=4,
    core=5,
    valid_share=0.1,
    test_share=0.1,
    seed=0,
)


def get_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        dict(
            name="tiny",
            data=dict(
                source="synthetic",
                history=16,
                synthetic=SYNTHETIC,
                dataset=config_dict.placeholder(str),
                spelling=config_dict.placeholder(tuple),
                levels=config_dict.placeholder(int),
            ),
            target=MODEL | dict(hidden_size=96, intermediate_size=256, layers=3, heads=4, kv_heads=2, head_dim=24),
            draft=MODEL | dict(hidden_size=32, intermediate_size=96, layers=1, heads=2, kv_heads=2, head_dim=16),
            train_target=TRAIN,
            train_draft=TRAIN | dict(learning_rate=5e-3),
            align=dict(
                objective="coverage",
                alpha=0.9,
                temperature=1.0,
                top_k=20,
                density_weight=1.0,
                coverage_weight=1.0,
                score_norm="vocab",
                on_policy=0.0,
                alpha_warmup=0,
            ),
            train_align=TRAIN | dict(buckets=(16,), learning_rate=5e-3, evaluations=2, valid_users=64),
            teacher=dict(beams=20, prompts=1, batch_size=64, buckets=(16,), log_probs=True),
            mesh=dict(data=config_dict.placeholder(int), fsdp=1, tensor=1),  # None: the devices that the others leave
            decode=dict(
                widths=("all", 32, 48), gamma=3, score_norm="vocab", budget=config_dict.placeholder(int), unroll=False
            ),
            evaluate=dict(
                list_size=20,
                beams=(20, 5, 1),
                grid_beams=(),
                grid_widths=(),
                grid_users=100,
                drafters=("draft", "popularity"),
                users=config_dict.placeholder(int),  # None: all test users
                batch_size=64,
                buckets=(16,),
                latency_users=20,
                latency_repeats=3,
                bootstrap_samples=1000,
                seed=0,
                tune=(),
                beside_tuned=True,
            ),
        )
    )
