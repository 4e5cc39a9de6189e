# pyright: reportMissingImports=false
# torch, transformers and peft are an extra: a checkout is checked without them too.
"""A training step of an adapter beside one of PEFT, with equal weights and batch."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.benchmarks.generate import interleaved
from atspeed_jax.benchmarks.random_models import CODES, ITEMS, random_config, random_params, random_prompts
from atspeed_jax.export.hugging_face import export_hf
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import LoraConfig, init_adapter
from atspeed_jax.training import sharding
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.optim import OptimConfig, make_optimizer
from atspeed_jax.training.step import make_train_step
from atspeed_jax.utils.ranges import BatchSize, Range, Repeats, check_ranges

LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0, targets=("q_proj", "v_proj"))
OPTIM = OptimConfig(
    learning_rate=1e-4, warmup_steps=0, weight_decay=0.01, clip_norm=1.0, b1=0.9, b2=0.999, average=0.0, steps=1000
)


@dataclasses.dataclass(frozen=True)
class LoraBenchmark:
    """What is timed.

    Attributes:
      rows: per step.
      dtypes: each is measured by itself.
      model: name of one of `random_models.SIZES`.
      repeats: timed steps of each side.
      seconds: if three steps of each side took longer, no more are timed.
    """

    rows: BatchSize
    dtypes: tuple[Literal["float32", "bfloat16"], ...]
    model: str = "110M"
    repeats: Repeats = 7
    seconds: Annotated[float, Range(0, 1e6)] = 60.0

    def __post_init__(self):
        check_ranges(self)


def our_step(model: LlamaConfig, params: Any, tokens: np.ndarray) -> tuple[Callable[[], float], int]:
    """Compiles a training step of the adapter.

    Returns:
      A function that takes one more step and returns its loss, and the bytes of the
      step's temporaries.
    """
    base = jax.tree.map(lambda leaf: leaf.astype(model.dtype), params)
    state = {
        "params": init_adapter(model, LORA, params, 0, jax.random.key(0)),
        "step": jnp.int32(0),
        "key": jax.random.key(1),
    }
    state["opt_state"] = make_optimizer(OPTIM).init(state["params"])
    valid = np.ones(tokens.shape, bool)
    batch = {"tokens": tokens, "valid": valid, "predict": valid}
    step = make_train_step(training_loss(model, 4, 0.0, LORA), OPTIM, sharding.make_mesh(sharding.MeshConfig()), base)
    held = [state]

    def run() -> float:
        new, metrics = step(held.pop(), batch)
        held.append(new)
        return float(metrics["loss"])

    loss = jax.jit(jax.grad(training_loss(model, 4, 0.0, LORA), has_aux=True))
    analysis = loss.lower(state["params"], batch, state["key"], base).compile().memory_analysis()
    return run, cast(Any, analysis).temp_size_in_bytes


def their_step(directory: Path, tokens: np.ndarray, dtype: str) -> Callable[[], float]:
    """Returns a function that takes one more step of PEFT and returns its loss."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory).to(getattr(torch, dtype))
    config = peft.LoraConfig(
        r=LORA.rank, lora_alpha=cast(int, LORA.alpha), target_modules=list(LORA.targets), task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=OPTIM.learning_rate, weight_decay=OPTIM.weight_decay)
    rows = torch.from_numpy(tokens).long()

    def run() -> float:
        optimizer.zero_grad()
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, OPTIM.clip_norm)
        optimizer.step()
        return float(loss.detach())

    return run


def measure_lora(config: LoraBenchmark, say: Callable[[str], None]) -> list[dict]:
    """Times both sides with each dtype; `say` hears of each.

    Returns:
      A row per dtype and side. ms_p50: median of a step, the first one apart.
      temporaries_mib: of our compiled step, None for PEFT.
    """
    catalog, found = Catalog.random(ITEMS, CODES), []
    tokens = random_prompts(catalog, config.rows, 84, 0)["tokens"]
    for dtype in config.dtypes:
        model = dataclasses.replace(random_config(config.model, catalog.vocab_size), dtype=dtype)
        params = jax.jit(random_params, static_argnums=(0, 1))(model, 0)
        count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
        with tempfile.TemporaryDirectory() as place:
            export_hf(Path(place) / "base", model, params, catalog, history=20, dtype="float32")
            ours, temporaries = our_step(model, params, tokens)
            runs = {"ours": ours, "peft": their_step(Path(place) / "base", tokens, dtype)}
        losses = {side: run() for side, run in runs.items()}
        timed = {side: functools.partial(_seconds, run) for side, run in runs.items()}
        times = interleaved(timed, config.repeats, config.seconds)
        middle = {side: float(np.median(values)) for side, values in times.items()}
        found += [
            {
                "side": side,
                "dtype": dtype,
                "params_m": round(count, 1),
                "rows": len(tokens),
                "tokens": tokens.shape[1],
                "first_loss": losses[side],
                "ms_p50": 1e3 * middle[side],
                "rows_per_s": len(tokens) / middle[side],
                "ratio_to_peft": middle["peft"] / middle[side],
                "temporaries_mib": temporaries / 2**20 if side == "ours" else None,
            }
            for side in runs
        ]
        say(f"{dtype}: ours {1e3 * middle['ours']:.0f} ms, peft {1e3 * middle['peft']:.0f} ms")
    return found


def _seconds(run: Callable[[], float]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
