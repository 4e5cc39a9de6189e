"""How many kernels a layer of the target launches per call, off the compiled program.

A call that reads few tokens takes as long as its launches. The program is that of this
machine's CPU, or that of a GPU that is not here (planning/gpu.py).

    python -m atspeed_jax.planning.kernels
    python -m atspeed_jax.planning.kernels --compiler=gpu --shape=llama-7b --dtype=bfloat16
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.unroll import unroll
from atspeed_jax.models.weights import param_shapes
from atspeed_jax.models.wide_shapes import SHAPES, widened_config
from atspeed_jax.planning.gpu import GPUS, gpu_device, on
from atspeed_jax.planning.hlo import Kernels, read_program
from atspeed_jax.planning.rounds import PARTS, Programs
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.serving.model_calls import ModelCall, call_alone
from atspeed_jax.training.chips import CHIPS

# On a CPU the number of kernels depends on what is computed, not on these sizes. On a GPU
# it depends on them: a product of few rows is split into parts that are added later.
SIZES = LlamaConfig(500, 256, 704, 2, 4, 4, 64, 1e4, 1e-6, True, 0.0, "float32", False)
FEWER, MORE = 2, 3  # layers of the programs that are compared


class Sizes(NamedTuple):
    """The sizes of a decode.

    Attributes:
      beams: nodes of a level.
      prompt: tokens of a prompt.
      levels: levels of the tree, one less than the codes of an id.
      batch: users.
    """

    beams: int
    prompt: int
    levels: int
    batch: int


class Counted(NamedTuple):
    """Kernels of one program.

    Attributes:
      calls: model calls of the target in it.
      layer: kernels of one layer, in all calls together.
      whole: kernels of the program with all layers of the target.
    """

    calls: int
    layer: Kernels
    whole: Kernels


def calls(config: LlamaConfig, *, beams: int, prompt: int, levels: int, batch: int, unrolled: bool) -> dict:
    """Makes the calls of a decode by name: prompt, level, and prompt and tree together.

    Args:
      config: of the target.
      beams, prompt, levels, batch: see `Sizes`.
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


def count_call(call: ModelCall, device: Any = None) -> Counted:
    """Counts the kernels of a call that is made alone.

    Args:
      call: the call.
      device: a GPU to compile for (`gpu_device`); None for this machine's CPU.
    """

    def compiled(layers: int) -> str:
        return _compiled(dataclasses.replace(call, config=_with_layers(call.config, layers)), device)

    return _counted(compiled, 1, call.config.layers)


def count_decode(config: LlamaConfig, sizes: Sizes, device: Any) -> dict[str, Counted]:
    """Counts the kernels of whole programs of a decode, whose layers lie side by side.

    Args:
      config: of the target; the draft has one layer of it.
      sizes: of the decode. The tree has as many nodes in each level as there are beams.
      device: a GPU to compile for.

    Returns:
      Plain beam search, round 1 of speculation, and a later round.
    """
    codes = sizes.levels + 1
    catalog = Catalog.random(50 * sizes.beams, (64,) * codes)
    config = dataclasses.replace(config, vocab_size=catalog.vocab_size)
    search = SearchConfig((sizes.beams,) * sizes.levels, sizes.levels, "vocab", beams=sizes.beams)
    programs = Programs(
        config, _with_layers(config, 1), search, build_trie(catalog.id_tokens), sizes.batch, sizes.prompt, device, None
    )

    def counted(part: str, made: int) -> Counted:
        def compiled(layers: int) -> str:
            lowered = PARTS[part](dataclasses.replace(programs, target=_with_layers(config, layers)))
            return str(lowered.compile().as_text())

        return _counted(compiled, made, config.layers)

    return {
        "plain beam search": counted("plain", codes),
        "speculation, round 1": counted("first", 1),
        "speculation, a later round": counted("later", 1),
    }


def _with_layers(config: LlamaConfig, count: int) -> LlamaConfig:
    return dataclasses.replace(config, layers=count)


def _counted(compiled: Callable[[int], str], made: int, layers: int) -> Counted:
    fewer, more = (read_program(compiled(count)).kernels() for count in (FEWER, MORE))
    layer = more - fewer
    return Counted(made, layer, fewer + layer * (layers - FEWER))


def _compiled(call: ModelCall, device: Any) -> str:
    """Compiles a call and returns the text of its program."""
    model, step, inputs = call_alone(call)
    dtype = jnp.dtype(call.config.dtype)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), param_shapes(call.config))
    if call.unrolled:
        params = jax.eval_shape(unroll, params)
    cache = jax.eval_shape(lambda: model.init_cache(call.batch, call.slots))
    arguments = params, inputs, cache
    return step.lower(*(arguments if device is None else on(device, arguments))).compile().as_text()


def _table(title: str, counted: dict[str, Counted]) -> Table:
    def mean(kernels: int, calls: int) -> str:
        return f"{kernels / calls:.1f}".removesuffix(".0")

    rows = [
        [name, *(mean(part, one.calls) for part in (*one.layer, one.layer.total)), str(one.whole.total)]
        for name, one in counted.items()
    ]
    return Table(title, ["call", "products", "others", "all", "whole program"], rows)


def main() -> None:
    """Prints the kernels of the calls, of a GPU those of whole programs too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    for name, default in (("beams", 20), ("prompt", 100), ("levels", 3), ("batch", 1)):
        parser.add_argument(f"--{name}", default=default, type=int)
    parser.add_argument("--compiler", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--chip", default="h200", choices=GPUS, help="with --compiler=gpu")
    parser.add_argument("--shape", default="small", choices=["small", *SHAPES], help="of the target")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    given = parser.parse_args()
    device = gpu_device(given.chip) if given.compiler == "gpu" else None
    config = dataclasses.replace(SIZES, dtype=given.dtype)
    if given.shape != "small":
        config = widened_config(config, given.shape)
    sizes = Sizes(given.beams, given.prompt, given.levels, given.batch)
    for unrolled, layout in ((False, "layers stacked"), (True, "layers side by side")):
        counted = {
            name: count_call(call, device) for name, call in calls(config, **sizes._asdict(), unrolled=unrolled).items()
        }
        print(as_text(_table(f"kernels per layer and call, {layout}", counted)))
    if device is not None:
        where = f"kernels per layer and call in whole programs, {CHIPS[given.chip].kinds[0]}"
        print(as_text(_table(where, count_decode(config, sizes, device))))


if __name__ == "__main__":
    main()
