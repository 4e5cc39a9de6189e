"""A process of its own: residual k-means on all of its devices. Prints a JSON object (tests/ids/test_kmeans.py)."""

import json

import jax
import numpy as np

from atspeed_jax.ids.points import data_mesh, place
from atspeed_jax.ids.residual import residual_kmeans

rng = np.random.default_rng(0)
vectors = (3 * rng.normal(size=(10, 4))[rng.integers(10, size=301)] + rng.normal(size=(301, 4))).astype(np.float32)
found, codes = residual_kmeans(vectors, (8, 8), seed=0)
print(
    json.dumps(
        {
            "devices": jax.device_count(),
            "shards": len(place(vectors, 8, data_mesh()).rows.sharding.device_set),
            "ids": codes.tolist(),
            "centers": [centers.tolist() for centers in found.centers],
        }
    )
)
