"""An evaluation of the toy catalog (tests/evaluation/conftest.py), and lists to put in the place of decoded ones."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from atspeed_jax.data.dataset import Dataset
from atspeed_jax.evaluation.config import EvaluateConfig
from atspeed_jax.evaluation.evaluate import Evaluation
from atspeed_jax.evaluation.store import MeasurementStore
from atspeed_jax.serving.decode_users import Decoded
from atspeed_jax.serving.settings import DecodeConfig

CONFIG = EvaluateConfig(
    list_size=10,
    beams=(5, 2),
    grid_beams=(3,),
    grid_widths=(("all",), (3,)),
    grid_users=2,
    drafters=("draft", "popularity"),
    users=None,
    batch_size=2,
    buckets=(1, 4),
    latency_users=2,
    latency_repeats=3,
    bootstrap_samples=10,
    seed=0,
)
DECODE = DecodeConfig(widths=("all",), gamma=1, score_norm="vocab")
FLOAT32, BFLOAT16 = (  # decoders that decode nothing
    SimpleNamespace(target=SimpleNamespace(dtype=dtype, precision="highest", arithmetic=f"as {dtype}"))
    for dtype in ("float32", "bfloat16")
)
SPLITS = {
    "train": ([0, 1, 2, 3, 6], [], [3], [5, 5], [], [6]),
    "valid": ([4], [], [], [0], [], []),
    "test": ([6, 2], [1], [], [3], [0], [2]),
}


def make_evaluation(toy, directory, **changes) -> Evaluation:
    splits = {
        name: tuple(np.array(items, np.int32) for items in changes.pop(name, rows)) for name, rows in SPLITS.items()
    }
    return Evaluation(
        MeasurementStore(directory, lambda text: None),
        Dataset("toy", toy.catalog, **splits),
        changes.pop("decoders", None),
        changes.pop("decode", DECODE),
        dataclasses.replace(CONFIG, **changes),
        history=4,
        target_fingerprint="t1",
    )


def decoded_lists(**changes) -> Decoded:
    """Four users, three levels."""
    values = {
        "ids": np.zeros((4, 2), int),
        "tokens": np.zeros((4, 2, 3), int),
        "score": np.zeros((4, 2)),
        "calls": np.array([1, 2, 3, 1]),
        "given_up": np.zeros(4),
        "batch_rounds": 5,
        "batches": 2,
        "seconds": 0.25,
        "reached": np.array([[1, 1], [1, 1], [1, 0], [1, 1]], bool),
        "accepted": np.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool),
        "coverage": np.array([[1, 1], [1, 0.5], [0.25, 0.75], [1, 1]]),
    }
    return Decoded(**(values | changes))
