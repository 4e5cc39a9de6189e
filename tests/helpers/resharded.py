"""A process of its own: trains a small Llama on a mesh, to the end or until a batch that kills it. Prints JSON.

python resharded.py DIRECTORY FSDP TENSOR DIES_AT (-1: never)
"""

import functools
import json
import os
import signal
import sys

import jax

import eight_devices as E
from atspeed_jax.models.llama import init_params
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.sharding import MeshConfig, make_mesh
from atspeed_jax.training.task import TrainingTask
from atspeed_jax.training.train import fit


class Batches(list):
    """Those of eight_devices.py; asking for one of them ends the process as `kill -9` does."""

    def __init__(self, dies_at):
        super().__init__(E.batches())
        self.dies_at, self.asked = dies_at, []

    def __getitem__(self, step):
        self.asked.append(step)
        if step == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(step)


def main():
    directory, fsdp, tensor, dies_at = sys.argv[1], *map(int, sys.argv[2:5])
    batches = Batches(dies_at)
    task = TrainingTask(
        name="resharded",
        fingerprint="resharded",
        init_params=functools.partial(init_params, E.TARGET),
        loss=training_loss(E.TARGET, E.LENGTH, 0.0),
        batches=batches,
        evaluate=lambda params: {"one": 1.0},
        monitor="one",
        mode="min",
    )
    params = fit(
        task,
        FitConfig(optim=E.OPTIM, steps=12, eval_every=12, patience=0, checkpoint_every=3, log_every=1, seed=0),
        directory,
        make_mesh(MeshConfig(None, fsdp, tensor)),
    )
    kernel = params["layers"]["mlp"]["gate"]["kernel"]
    losses = [record["loss"] for record in read_metrics(f"{directory}/metrics.jsonl") if record["split"] == "train"]
    part = kernel.addressable_shards[0].data.size / kernel.size
    sums = [float(abs(x).sum()) for x in jax.tree.leaves(params)]
    print(json.dumps({"losses": losses, "first": batches.asked[0], "part_of_kernel": part, "sums": sums}))


if __name__ == "__main__":
    main()
