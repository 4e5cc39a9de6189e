"""A process of its own, with 8 CPU devices: the small pipeline with very few users.

`python few_users.py DIRECTORY` prints {case: report} as JSON (tests/test_pipeline_few_users.py).
"""

import contextlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

import small
from atspeed_jax.data.sources import Source, synthesize
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from launch.config import load

# Users with items to train on, to validate on, to test on; rows of a training batch.
CASES = {"three train users": (3, 1, 1, 256), "67 test users": (5, 2, 67, 16)}
TEST_BATCH = 64


def few(source: Source, train: int, valid: int, test: int) -> Source:
    """The first `train` users keep train items, the first `valid` one to validate on, the last `test` one to test."""
    users = max(train, valid, test)
    nothing = np.zeros(0, np.int32)
    items = [source.train[user % len(source.train)] for user in range(users)]
    return Source(
        "few",
        source.codes,
        [own[:-2] if user < train else nothing for user, own in enumerate(items)],
        [own[-2:-1] if user < valid else nothing for user, own in enumerate(items)],
        [own[-1:] if user >= users - test else nothing for user, own in enumerate(items)],
    )


def main():
    assert jax.device_count() == 8
    config = load(small.get_config(), ExperimentConfig)
    source = synthesize(config.data.synthetic)
    config = small.changed(small.changed(config, "data.source", "atspeed"), "data.synthetic", None)
    config = small.changed(config, "evaluate.batch_size", TEST_BATCH)
    reports = {}
    for name, (*users, batch_size) in CASES.items():
        directory = Path(sys.argv[1]) / name
        small.write_atspeed(directory / "data", few(source, *users))
        own = config
        for stage in ("train_target", "train_draft", "train_align", "teacher"):
            own = small.changed(own, f"{stage}.batch_size", batch_size)
        with contextlib.redirect_stdout(sys.stderr):
            reports[name] = Run(own, directory / "run", directory / "data").all()
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
