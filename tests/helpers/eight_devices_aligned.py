"""A process of its own, with 8 CPU devices: an adapter, teacher data and alignment on a mesh, beside one device.

Prints a JSON object (tests/training/test_sharding.py). Arguments: the model type and the mesh.
"""

import dataclasses
import json
import sys

import jax
import numpy as np

from atspeed_jax.alignment.align import AlignConfig, make_align_loss
from atspeed_jax.alignment.teacher_beams import aligned_beams, beam_log_probs, beam_nodes
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaStep, init_params
from atspeed_jax.models.lora import LoraConfig, init_adapter
from atspeed_jax.training import sharding
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.sharding import make_mesh
from atspeed_jax.training.step import initializer, make_train_step
from eight_devices import DRAFT, FIT, IDS, LENGTH, MESHES, OPTIM, TARGET, batches, relative

KIND = {"model_type": sys.argv[1], "attention_bias": sys.argv[1] == "qwen3"}
TARGET, DRAFT = (dataclasses.replace(model, **KIND) for model in (TARGET, DRAFT))
BEAMS, STEPS = 4, 8
LORA = LoraConfig(4, 8.0, 0.0, ("q_proj", "o_proj", "down_proj"))
ALIGN = AlignConfig(
    "coverage", alpha=0.8, temperature=1.0, top_k=2, density_weight=1.0, coverage_weight=1.0, score_norm="vocab"
)


def train(mesh, init, loss, given, frozen):
    """Losses and the trained parameters on the host; how much of the largest of them a device holds."""
    state = initializer(init, FIT, mesh, frozen)()
    step = make_train_step(loss, OPTIM, mesh, frozen)
    losses = []
    for batch in given:
        state, metrics = step(state, sharding.shard_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    largest = max(jax.tree.leaves(state["params"]), key=lambda leaf: leaf.size)
    part = largest.addressable_shards[0].data.size / largest.size
    return {"losses": losses, "params": jax.device_get(state["params"]), "part": part}


def adapted(mesh, target):
    def init(key, base):
        return init_adapter(TARGET, LORA, base, 0, key)

    return train(mesh, init, training_loss(TARGET, LENGTH, 0.0, LORA), list(batches())[:STEPS], target)


def taught(mesh, target, context):
    """(batches of alignment, what the teacher thinks of its beams' children)."""
    given, thoughts = [], []
    for number, batch in enumerate(list(batches())[:STEPS]):
        tokens = np.concatenate([batch["tokens"][:, 1:], batch["tokens"][:, :1]], 1)  # the model knows no BOS
        tokens[: number % 5, :LENGTH] = 0
        host = {"tokens": tokens, "valid": tokens > 0}
        placed = sharding.shard_batch(host, mesh)
        prompt = Prompt(placed["tokens"], placed["valid"])
        found = beam_nodes(LlamaStep(TARGET), target, context.trie, prompt, beams=BEAMS, score_norm="vocab")
        values, exists = beam_log_probs(TARGET, target, context, prompt, aligned_beams(found))
        thoughts.append(np.where(exists, values, 0.0))
        nodes = jax.device_get(found)
        next_id = (np.arange(len(tokens)) + number) % len(IDS)
        given.append(host | {"beams": aligned_beams(nodes), "list": nodes[:, -1], "next_id": next_id.astype(np.int32)})
    return given, np.stack(thoughts)


def on(name):
    mesh = make_mesh(MESHES[name])

    def placed(model, seed):
        def begin(path, leaf):
            """What begins alike everywhere proves nothing: biases at 0, scales of heads at 1."""
            names = [part.key for part in path]
            noise = 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
            if "bias" in names:
                return noise
            return 1 + noise if {"query_norm", "key_norm"} & set(names) else 4 * leaf

        own = jax.tree_util.tree_map_with_path(begin, init_params(model, jax.random.key(seed)))
        return jax.device_put(own, sharding.tree_shardings(own, mesh))

    context = jax.device_put(tree_context(build_trie(IDS), IDS), sharding.replicated(mesh))
    target = placed(TARGET, 1)
    given, thoughts = taught(mesh, target, context)
    loss = make_align_loss(ALIGN, DRAFT, TARGET, (6, 6))
    frozen = {"sft": placed(DRAFT, 2), "target": target, "context": context}
    return {
        "adapter": adapted(mesh, target),
        "aligned": train(mesh, lambda key, frozen: frozen["sft"], loss, given, frozen),
        "beams": np.stack([batch["beams"] for batch in given]),
        "thoughts": thoughts,
    }


def main():
    alone, mixed = on("one"), on(sys.argv[2])
    report = {
        "same_beams": bool((alone["beams"] == mixed["beams"]).all() and (alone["beams"] >= 0).any()),
        "thoughts": float(np.abs(alone["thoughts"] - mixed["thoughts"]).max()),
    }
    for what in ("adapter", "aligned"):
        one, other = alone[what], mixed[what]
        report[what] = {
            "losses": float(np.max(np.abs(np.divide(other["losses"], one["losses"]) - 1))),
            "params": relative(other["params"], one["params"]),
            "first_loss": one["losses"][0],
            "last_loss": one["losses"][-1],
            "part": other["part"],
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
