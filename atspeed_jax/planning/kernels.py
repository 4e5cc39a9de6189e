"""How many kernels a layer of the target launches per call, off the compiled program.

A call that reads few tokens takes as long as its launches.

    python -m atspeed_jax.planning.kernels --beams=20 --prompt=100
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp

from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.planning.hlo import read_program
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.serving.model_calls import ModelCall, call_alone

# The number of kernels depends on what is computed, not on these sizes.
SIZES = LlamaConfig(500, 256, 704, 2, 4, 4, 64, 1e4, 1e-6, True, 0.0, "float32", False)


def calls(config: LlamaConfig, *, beams: int, prompt: int, levels: int, batch: int, unrolled: bool) -> dict:
    """Makes the calls of a decode by name: prompt, level, and prompt and tree together.

    Args:
      config: of the target.
      beams: nodes of a level.
      prompt: tokens of a prompt.
      levels: levels of the tree.
      batch: users.
      unrolled: whether layers lie side by side.
    """
    nodes, slots = levels * beams, prompt + levels * beams
    shared = {"config": config, "batch": batch, "prompt": prompt, "slots": slots, "unrolled": unrolled}
    shared["contiguous"] = True
    return {
        "prompt": ModelCall(tokens=prompt, path=0, n_out=1, **shared),
        "level": ModelCall(tokens=beams, path=levels, n_out=beams, **shared),
        "prompt and tree": ModelCall(tokens=prompt + nodes, path=levels, n_out=1 + nodes, **shared),
    }


def kernels_per_layer(call: ModelCall) -> int:
    """Compiles the call with 2 and with 3 layers and returns the difference."""
    fewer, more = (_kernels(dataclasses.replace(call, config=_with_layers(call.config, n))) for n in (2, 3))
    return more - fewer


def _with_layers(config: LlamaConfig, count: int) -> LlamaConfig:
    return dataclasses.replace(config, layers=count)


def _kernels(call: ModelCall) -> int:
    model, step, inputs = call_alone(call)
    dtype = jnp.dtype(call.config.dtype)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), param_shapes(call.config))
    if call.unrolled:
        params = jax.eval_shape(unroll, params)
    cache = jax.eval_shape(lambda: model.init_cache(call.batch, call.slots))
    return read_program(step.lower(params, inputs, cache).compile().as_text()).kernels()


def main() -> None:
    """Prints a row per call, with layers stacked and side by side."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    for name, default in (("beams", 20), ("prompt", 100), ("levels", 3), ("batch", 1)):
        parser.add_argument(f"--{name}", default=default, type=int)
    parser.add_argument("--dtype", default="float32")
    given = vars(parser.parse_args())
    config = dataclasses.replace(SIZES, dtype=given.pop("dtype"))
    both = [calls(config, unrolled=unrolled, **given) for unrolled in (False, True)]
    rows = [[name, *(str(kernels_per_layer(one[name])) for one in both)] for name in both[0]]
    print(as_text(Table("kernels per layer", ["call", "stacked", "side by side"], rows)))


if __name__ == "__main__":
    main()
