"""The whole pipeline in seconds: a config file like those in configs/, for tests of it and of what it calls.

Ids have three codes, and a width below the number of prefixes, so that the drafts do miss.
"""

import dataclasses
import json
from pathlib import Path

import ml_collections
from ml_collections import config_dict

from atspeed_jax.data.sources import SPLITS, Source

BEAMS = 10


def get_config() -> ml_collections.ConfigDict:
    model = dict(
        hidden_size=16,
        intermediate_size=16,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=8,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        tied_embeddings=True,
        dropout=0.0,
        dtype="float32",
        remat=False,
    )
    train = dict(
        epochs=2.0,
        batch_size=32,
        buckets=(5,),
        learning_rate=1e-2,
        warmup_steps=2,
        weight_decay=0.1,
        clip_norm=1.0,
        b1=0.9,
        b2=0.99,
        average=0.5,
        shuffle=0.1,
        evaluations=2,
        patience=0,
        checkpoint_every=2,
        log_every=1,
        valid_users=8,
        seed=0,
    )
    return ml_collections.ConfigDict(
        dict(
            name="small",
            data=dict(
                source="synthetic",
                history=4,
                synthetic=dict(
                    users=60,
                    item_count=40,
                    clusters=5,
                    dimensions=4,
                    spread=0.4,
                    twins=3,
                    levels=3,
                    codes_per_level=4,
                    kmeans_iterations=5,
                    zipf=0.6,
                    events=12,
                    drift=0.2,
                    noise=0.1,
                    days=100,
                    active_share=0.5,
                    min_rating=4,
                    core=2,
                    valid_share=0.1,
                    test_share=0.1,
                    seed=0,
                ),
            ),
            target=dict(model),
            draft=model | dict(hidden_size=8),
            train_target=dict(train),
            train_draft=dict(train),
            align=dict(
                objective="coverage",
                alpha=0.9,
                temperature=1.0,
                top_k=4,
                density_weight=1.0,
                coverage_weight=1.0,
                score_norm="vocab",
            ),
            train_align=train | dict(buckets=(4,), epochs=1.0),
            teacher=dict(beams=BEAMS, prompts=2, batch_size=8, buckets=(4,), log_probs=True),
            decode=dict(widths=("all", 10), gamma=2, score_norm="vocab", unroll=False),
            evaluate=dict(
                list_size=BEAMS,
                beams=(BEAMS,),
                grid_beams=(),
                grid_widths=(),
                grid_users=4,
                drafters=("draft", "popularity"),
                users=config_dict.placeholder(int),
                batch_size=1,  # the shape of the latency figures too: half the compilations
                buckets=(4,),
                latency_users=2,
                latency_repeats=1,
                bootstrap_samples=20,
                seed=0,
                tune=(),
            ),
        )
    )


def changed(config, path: str, value):
    """A frozen config with one field, such as "target.hidden_size", set to another value."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


def write_atspeed(directory: Path, source: Source) -> Path:
    """The source in AtSpeed's text layout, to be read back by `read_atspeed`."""
    directory.mkdir(parents=True)
    index = {
        str(item): [f"<{letter}_{code}>" for letter, code in zip("abcdefgh", row, strict=False)]
        for item, row in enumerate(source.codes.tolist())
    }
    (directory / "index.json").write_text(json.dumps(index))
    for split in SPLITS:
        lines = [" ".join(map(str, (user, *(items + 1)))) for user, items in enumerate(getattr(source, split), start=1)]
        (directory / f"sequential_{split}.txt").write_text("\n".join(lines) + "\n")
    return directory


def snapshot(directory: Path) -> dict[str, tuple]:
    """Everything below a directory with what a write would change."""
    return {
        path.relative_to(directory).as_posix(): (status.st_ino, status.st_size, status.st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and (status := path.stat())
    }
