"""How much of an accelerator a training step and an alignment step use.

The target has the cost of a larger one (`models.widen`). The values of its weights do
not change a step's time.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from atspeed_jax.alignment.align import AlignConfig, make_align_loss
from atspeed_jax.alignment.teacher_beams import aligned_beams, beam_nodes
from atspeed_jax.alignment.tree import tree_context
from atspeed_jax.benchmarks.decode_cells import PAIR
from atspeed_jax.benchmarks.decode_floor import measure_ceilings
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.config import prefixes_by_norm, raised_widths, resolve_widths
from atspeed_jax.items.catalog import BOS
from atspeed_jax.items.trie import build_trie
from atspeed_jax.models.llama import LlamaConfig, LlamaStep, init_params
from atspeed_jax.models.wide_shapes import widened_config
from atspeed_jax.models.widen import widen
from atspeed_jax.training.chips import chip_of_kind
from atspeed_jax.training.fit_config import FitConfig
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.optim import OptimConfig
from atspeed_jax.training.sharding import MeshConfig, make_mesh
from atspeed_jax.training.speed import flops_per_token
from atspeed_jax.training.step import initializer, make_train_step
from atspeed_jax.utils.device_time import traced
from atspeed_jax.utils.program_memory import peak_device_memory
from atspeed_jax.utils.ranges import BatchSize, Beams, PromptTokens, Repeats, check_ranges

Kind = Literal["train", "align"]
FIT = FitConfig(
    optim=OptimConfig(
        learning_rate=1e-4, warmup_steps=0, weight_decay=0.01, clip_norm=1.0, b1=0.9, b2=0.999, average=0.0, steps=1000
    ),
    steps=1000,
    eval_every=1000,
    patience=0,
    checkpoint_every=1000,
    log_every=1000,
    seed=0,
)
FORWARD = 2.0  # operations of a forward pass per parameter and token


@dataclasses.dataclass(frozen=True)
class StepSuite:
    """What is measured.

    Attributes:
      kind: "train", next-item training of the target; or "align", alignment of the
        pair's draft, for which the target reads the tree in the step.
      shape: of the target, a name of `models.wide_shapes.SHAPES` or "pair".
      rows: of a batch. A batch that does not fit the memory is halved.
      tokens: of a row's items, BOS apart.
      beams: K of the alignment.
      dtype: that the target computes in.
      repeats: timed steps; their median counts.
      trace: whether a trace says where the device's time goes.
    """

    kind: Kind
    shape: str = "1b"
    rows: BatchSize = 128
    tokens: PromptTokens = 100
    beams: Beams = 20
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    repeats: Repeats = 7
    trace: bool = True

    def __post_init__(self):
        check_ranges(self)


class Step(NamedTuple):
    """A step that can be run.

    Attributes:
      run: (state, batch) -> (state, metrics); donates the state.
      state, batch: its arguments.
      tokens: that a row of the batch has in one pass.
      flops: operations of the models per token, recomputation not counted.
    """

    run: Callable
    state: Any
    batch: Any
    tokens: int
    flops: float


def measure_step(pair: Pair, suite: StepSuite, say: Callable[[str], None]) -> dict:
    """Times a step, with fewer rows if the memory does not hold them.

    Args:
      pair: whose target is made larger.
      suite: what is measured.
      say: called with a line.

    Returns:
      A row. "mfu" is the share of the peak of the chip's data sheet, None for a chip
      that is not in `training.chips`. "of_ceiling" is the share of the rate that a
      large product of matrices reached in this process.
    """
    while True:
        try:
            return _measured(pair, suite, say)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or suite.rows == 1:
                raise
            say(f"{suite.kind}: {suite.rows} rows do not fit, trying {suite.rows // 2}")
            suite = dataclasses.replace(suite, rows=suite.rows // 2)


def _measured(pair: Pair, suite: StepSuite, say: Callable[[str], None]) -> dict:
    small = dataclasses.replace(pair.target, dtype=suite.dtype, dropout=0.0)
    config = small if suite.shape == PAIR else widened_config(small, suite.shape)
    ceilings = measure_ceilings(config)
    step = (_training if suite.kind == "train" else _alignment)(pair, config, suite)
    held = [step.state]

    def run():
        state, metrics = step.run(held.pop(), step.batch)
        held.append(state)
        return metrics["loss"]

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - start

    first = seconds()
    times = [seconds() for _ in range(suite.repeats)]
    middle = float(np.median(times))
    rate, chip = suite.rows * step.tokens * step.flops / middle, chip_of_kind(jax.devices()[0].device_kind)
    found = traced(run) if suite.trace else None
    row = {
        "step": suite.kind,
        "shape": suite.shape,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(_initial(config), jax.random.key(0)))),
        "dtype": suite.dtype,
        "rows": suite.rows,
        "tokens": step.tokens,
        "ms": 1e3 * middle,
        "ms_most": 1e3 * max(times),
        "tokens_per_s": suite.rows * step.tokens / middle,
        "tflops": rate / 1e12,
        "mfu": None if chip is None else rate / chip.rate(config),
        "of_ceiling": rate / ceilings.flops,
        "loss": float(run()),
        "compile_s": round(first - middle, 2),
        "peak_memory_gib": peak_device_memory() / 2**30,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "device_time": found and dataclasses.asdict(found),
    }
    say(line_of(row))
    return row


def line_of(row: dict) -> str:
    """Says in one line what a row holds, the device's time apart."""
    mfu = "peak unknown" if row["mfu"] is None else f"MFU {row['mfu']:.3f}"
    return (
        f"{row['step']} step of {row['shape']}, {row['rows']} rows of {row['tokens']} tokens, {row['dtype']}: "
        f"{row['ms']:.1f} ms, {row['tflops']:.1f} TFLOP/s, {mfu}, {row['of_ceiling']:.3f} of a large product, "
        f"{row['peak_memory_gib']:.1f} GiB, compiled in {row['compile_s']:.1f} s"
    )


def _initial(config: LlamaConfig) -> Callable:
    return functools.partial(init_params, config)


def _tokens(pair: Pair, suite: StepSuite) -> np.ndarray:
    """Draws rows of BOS and random ids, [rows, 1 + L * items]."""
    items = max(1, suite.tokens // pair.id_tokens.shape[1])
    drawn = np.random.default_rng(0).integers(0, len(pair.id_tokens), (suite.rows, items))
    codes = pair.id_tokens[drawn].reshape(suite.rows, -1)
    return np.concatenate([np.full((suite.rows, 1), BOS, np.int32), codes.astype(np.int32)], 1)


def _training(pair: Pair, config: LlamaConfig, suite: StepSuite) -> Step:
    tokens, mesh = _tokens(pair, suite), make_mesh(MeshConfig(data=1))
    valid = np.ones(tokens.shape, bool)
    batch = jax.device_put({"tokens": tokens, "valid": valid, "predict": valid & (tokens != BOS)})
    state = initializer(_initial(config), FIT, mesh)()
    step = make_train_step(training_loss(config, pair.id_tokens.shape[1], 0.0), FIT.optim, mesh)
    flops = flops_per_token(state["params"], None, None)
    assert flops is not None, "nothing is frozen"
    return Step(step, state, batch, tokens.shape[1], flops)


def _alignment(pair: Pair, config: LlamaConfig, suite: StepSuite) -> Step:
    norm, trie, mesh = pair.decode.score_norm, build_trie(pair.id_tokens), make_mesh(MeshConfig(data=1))
    small, draft = (dataclasses.replace(one, dtype=suite.dtype, dropout=0.0) for one in (pair.target, pair.draft))
    tokens = jax.device_put(_tokens(pair, suite))
    prompt = Prompt(tokens, tokens >= 0)
    narrow = jax.device_put(pair.target_params)
    nodes = beam_nodes(LlamaStep(small), narrow, trie, prompt, beams=suite.beams, score_norm=norm)
    target = narrow if suite.shape == PAIR else widen(small, pair.target_params, config, unrolled=False)
    prefixes = prefixes_by_norm(pair.id_tokens)[norm]
    widths = resolve_widths(raised_widths(pair.decode.widths, prefixes, suite.beams), prefixes, suite.beams)
    align = AlignConfig(
        "coverage", 0.95, 1.0, top_k=suite.beams, density_weight=1.0, coverage_weight=1.0, score_norm=norm
    )
    next_id = np.arange(suite.rows, dtype=np.int32) % len(pair.id_tokens)
    batch = {"tokens": tokens, "valid": prompt.valid, "next_id": jax.device_put(next_id)}
    batch |= {"beams": aligned_beams(nodes), "list": nodes[:, -1]}
    frozen = {
        "sft": jax.device_put(pair.draft_params),
        "target": target,
        "context": tree_context(trie, pair.id_tokens),
    }
    state = initializer(lambda key, frozen: frozen["sft"], FIT, mesh, frozen)()
    step = make_train_step(make_align_loss(align, draft, config, widths), FIT.optim, mesh, frozen)
    # The root is a token of the prompt; each further level has K beams and the true
    # next item.
    read = tokens.shape[1] + max(pair.id_tokens.shape[1] - 2, 0) * (suite.beams + 1)
    flops = flops_per_token(state["params"], target, FORWARD)
    assert flops is not None, "the operations of the target are known"
    return Step(step, state, batch, read, flops)
