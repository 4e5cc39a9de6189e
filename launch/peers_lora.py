"""One fine-tuning step of an adapter, ours beside PEFT and torch: same weights, same batch, one run, interleaved."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from atspeed_jax.export import export_hf
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.lora import LoraConfig, init_adapter
from atspeed_jax.training import sharding
from atspeed_jax.training.next_item import training_loss
from atspeed_jax.training.optim import OptimConfig, make_optimizer
from atspeed_jax.training.step import make_train_step
from launch.peers import interleaved, random_catalog, random_config, random_params, random_prompts
from launch.stage import FLAGS


def define_flags() -> None:
    """Defines the flags of these suites."""
    flags.DEFINE_multi_enum(
        "dtypes",
        ["float32", "bfloat16"],
        ["float32", "bfloat16"],
        "Of the lora suite (--dtypes=float32 for that alone).",
    )
    flags.DEFINE_integer("rows", 8, "Of the lora suite: rows per step.", lower_bound=1, upper_bound=65_536)


LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0, targets=("q_proj", "v_proj"))
OPTIM = OptimConfig(
    learning_rate=1e-4, warmup_steps=0, weight_decay=0.01, clip_norm=1.0, b1=0.9, b2=0.999, average=0.0, steps=1000
)


def our_step(model: LlamaConfig, params: Any, tokens: np.ndarray) -> tuple[Callable[[], float], int]:
    """(() -> loss of one more step, bytes of temporaries that the compiled step needs)."""
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
    return run, analysis.temp_size_in_bytes


def their_step(directory: Path, tokens: np.ndarray, dtype: str) -> Callable[[], float]:
    """() -> loss of one more step."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory).to(getattr(torch, dtype))
    config = peft.LoraConfig(
        r=LORA.rank, lora_alpha=LORA.alpha, target_modules=list(LORA.targets), task_type="CAUSAL_LM"
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


def lora_rows(path: Path, model: str = "110M", repeats: int = 7, seconds: float = 60.0) -> list[dict]:
    """{"side", "dtype", "params_m", "rows", "tokens", "first_loss", "ms_p50", "rows_per_s", "ratio_to_peft",
    "temporaries_mib"} of both sides in each of --dtypes; median of `repeats` steps, of three if they take longer than
    `seconds`; the first one is left out."""
    del path  # no file beside the rows
    catalog, found = random_catalog(0), []
    tokens = random_prompts(catalog, FLAGS.rows, 84, 0)["tokens"]
    for dtype in FLAGS.dtypes:
        config = dataclasses.replace(random_config(model, catalog.vocab_size), dtype=dtype)
        params = jax.jit(random_params, static_argnums=(0, 1))(config, 0)
        count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
        with tempfile.TemporaryDirectory() as place:
            export_hf(Path(place) / "base", config, params, catalog, history=20, dtype="float32")
            ours, temporaries = our_step(config, params, tokens)
            runs = {"ours": ours, "peft": their_step(Path(place) / "base", tokens, dtype)}
        losses = {side: run() for side, run in runs.items()}
        times = interleaved({side: functools.partial(_seconds, run) for side, run in runs.items()}, repeats, seconds)
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
        print(f"[lora] {dtype}: ours {1e3 * middle['ours']:.0f} ms, peft {1e3 * middle['peft']:.0f} ms", flush=True)
    return found


def _seconds(run: Callable[[], float]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
