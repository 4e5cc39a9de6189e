"""`python resident.py predict|measure LAYERS HIDDEN ROWS`: memory of training a float32 Llama whole.

predict prints what the plan says of a step; measure trains 3 steps and prints by how much the peak of the process's
resident memory passes what it held before they began, compiled programs included; on a device that tells its own peak,
that one. All in GiB, as a JSON object.
"""

import dataclasses
import functools
import json
import sys

import jax
import numpy as np

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.llama import init_params
from atspeed_jax.planning.plan import GIB, plan
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.training import sharding
from atspeed_jax.training.chips import CHIPS
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.step import initializer, make_train_step
from atspeed_jax.utils.program_memory import peak_memory
from configs import lcrec_small
from launch.config import load
from resident_memory import now

CATALOG = Catalog.random(3000, (256,) * 4)


def config_of(layers: int, hidden: int, rows: int) -> ExperimentConfig:
    config = load(lcrec_small.get_config(), ExperimentConfig)
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "layers": layers, "heads": hidden // 64}
    target = dataclasses.replace(config.target, **sizes, kv_heads=hidden // 64, head_dim=64)
    train = dataclasses.replace(config.train_target, batch_size=rows, average=0.0)
    return dataclasses.replace(config, target=target, train_target=train)


def measure(config: ExperimentConfig) -> dict:
    model, train = config.target.llama(CATALOG.vocab_size), config.train_target
    fit, mesh = train.fit(100), sharding.make_mesh(config.mesh)
    init = initializer(functools.partial(init_params, model), fit, mesh)
    step = make_train_step(training_loss(model, 4, train.shuffle), fit.optim, mesh)
    rng = np.random.default_rng(0)

    def batch():
        items = rng.integers(3000, size=(train.batch_size, config.data.history + 1))
        tokens = np.pad(CATALOG.id_tokens[items].reshape(train.batch_size, -1), ((0, 0), (1, 0)), constant_values=1)
        return {"tokens": tokens, "valid": tokens > 0, "predict": tokens > 1}

    abstract = sharding.abstract_on(jax.eval_shape(init), mesh)
    begin = init.func.lower().compile()
    update = step.lower(abstract, sharding.shard_batch(batch(), mesh)).compile()
    before = now() / GIB
    state = begin()
    for _ in range(3):
        state, metrics = update(state, sharding.shard_batch(batch(), mesh))
        jax.block_until_ready(metrics)
    peak = peak_memory() / GIB
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    peak -= before
    if told := jax.devices()[0].memory_stats():  # a device with a memory of its own
        before, peak = 0.0, told["peak_bytes_in_use"] / GIB
    return {"parameters": parameters, "before": before, "peak": peak, "loss": float(metrics["loss"])}


def main():
    what, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
    config = config_of(*sizes)
    if what == "measure":
        print(json.dumps(measure(config)))
    else:
        (row,) = plan(config, CATALOG, CHIPS["v5e"], steps=("train",))
        print(json.dumps(row))


if __name__ == "__main__":
    main()
