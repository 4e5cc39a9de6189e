"""A small target and its draft on real data in the AtSpeed text layout; Beauty is the documented case.

    python -m launch.pipeline --config=configs/lcrec_small.py --workdir=runs/beauty --data_dir=PATH/TO/beauty

Nothing here knows Beauty: any directory of this layout with ids of 4 codes runs; for other lengths set
--config.decode.widths and --config.evaluate.grid_widths (one entry per level but the last).

--config=configs/lcrec_small.py:layers takes the draft that needs the fewest calls in "Drafts of several sizes" of
configs/README.md: the first and the last of the target's four layers, aligned for the 128 most promising nodes of a
wider tree. It has 0.79 M parameters where the draft below has 0.18 M.

Lab note, Beauty, 2026-11-24, 2-core AMD EPYC at 2.4 GHz, jax 0.10.2, GLIBC_TUNABLES=glibc.malloc.hugetlb=1, the command
above in a clean clone, one process, nothing beside it: 71 min 42 s.

    target    19,968 steps, 32 min. All 4,295 validation users, Recall@10 / NDCG@10 at steps 13,312, 16,640 and 19,968
      (kept): 0.0202 / 0.0119, 0.0205 / 0.0120, 0.0207 / 0.0124. Test: 0.0208 / 0.0119
    teacher   3 min
    draft     SFT 2 min, alignment 12.5 min; target calls of 500 validation users at steps 6,060 and 12,120: 1.300,
      1.236
    evaluate  22 min; no mismatched user in 35 rows; the draft's calls at K = 20 / 5 / 1, all test users: 1.323 /
      1.023 / 1.007

With 40 epochs (and 12 of alignment) it took 80 min: test 0.0217 / 0.0125, calls 1.442 / 1.044 / 1.011: better, and
harder to follow. Rounding differs between machines, and with it the target: on another one (2026-11-21) those 40 epochs
kept step 20,800, test 0.0200 / 0.0112, calls 1.303 / 1.019 / 1.007.

What the teacher is asked, with another target (48 epochs; test 0.0193 / 0.0112), calls of 500 validation users at step
7,272 (the last): two examples with known next items 1.624 (1.602; of all test users 1.637); the whole history and one
with a known next item 1.564; the whole history and a continuation 1.522; the whole history and two continuations 1.554.
Later kept steps of a longer trained target are harder to follow: with two known next items, 36 epochs and average
0.999, kept at 75 % of the steps 1.336, at the last (another rounding, on one core) 1.462; 48 epochs, at the last 1.602.
"""

import ml_collections
from ml_collections import config_dict

DATA = dict(
    dataset=config_dict.placeholder(str),  # None: the only one of the directory
    spelling=config_dict.placeholder(tuple),  # None: that of the index
    levels=config_dict.placeholder(int),  # None: all codes of an id
)
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
    accumulate=1,
)
ALIGN = TRAIN | dict(
    epochs=10.0,
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
    rope_theta=10_000.0,
    norm_eps=1e-6,
    tied_embeddings=True,
    heads=4,
    kv_heads=4,
    dtype="float32",
    remat=False,
    remat_policy="nothing",
    precision="highest",
)


DRAFTS = {
    "new": {},
    "layers": dict(
        draft=dict(target_layers=(0, -1), dropout=0.0),
        train_draft=None,
        train_align=ALIGN | dict(epochs=4.0),
        decode=dict(widths=("all", 128, 200), gamma=3, score_norm="vocab", budget=128, unroll=True),
    ),
}


def get_config(draft: str = "new") -> ml_collections.ConfigDict:
    if draft not in DRAFTS:
        raise ValueError(f"draft {draft!r}: expected one of {', '.join(DRAFTS)}")
    return ml_collections.ConfigDict(_fields() | DRAFTS[draft])


def _fields() -> dict:
    return dict(
        name="lcrec_small",
        data=DATA | dict(source="atspeed", history=20, synthetic=None),
        target=MODEL
        | dict(hidden_size=128, intermediate_size=512, layers=4, head_dim=32, dropout=0.1, tied_embeddings=False),
        draft=MODEL | dict(hidden_size=64, intermediate_size=224, layers=2, head_dim=16, dropout=0.0),
        train_target=TRAIN
        | dict(
            epochs=32.0,
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
            on_policy=0.0,
            alpha_warmup=0,
        ),
        train_align=ALIGN,
        teacher=dict(beams=20, prompts=2, batch_size=128, buckets=(3, 5, 8, 20), log_probs=True),
        mesh=dict(data=config_dict.placeholder(int), fsdp=1, tensor=1),  # None: the devices that the others leave
        decode=dict(
            widths=("all", 64, 96), gamma=3, score_norm="vocab", budget=config_dict.placeholder(int), unroll=True
        ),
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
            tune=(20, 5, 1),
            beside_tuned=True,
        ),
    )
