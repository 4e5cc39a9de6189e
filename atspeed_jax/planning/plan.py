"""Compiles the steps of a run for a mesh and reports what one device needs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax

from atspeed_jax.data.instructions import PLACEHOLDER
from atspeed_jax.items.catalog import Catalog, Instruction
from atspeed_jax.items.tokenizer import TOKENIZER_FILE
from atspeed_jax.models.pretrained import Pretrained
from atspeed_jax.planning.estimate import product_time, together
from atspeed_jax.planning.hlo import COLLECTIVES, FLOPS, read_program
from atspeed_jax.planning.steps import Step, Steps, describe_models
from atspeed_jax.planning.tpu import padding
from atspeed_jax.reporting.tables import ABSENT, Table
from atspeed_jax.runs.checks import check_batches, check_mesh
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.serving.catalogs import catalog_for, check_positions
from atspeed_jax.training.chips import Chip, roofline
from atspeed_jax.training.sharding import make_mesh

GIB = 2**30
CHARACTERS = 3  # of an instruction per token, if no tokenizer is known; LLaMA's has 3.5 in English
STEPS = {"train": "train_target", "align": "align_draft", "decode": "decode"}
NOTE = """FLOPs: of matrix products. Received: bytes that collectives bring to a device, in ring algorithms. Decoding
counts all possible rounds; "at least" counts round 1 only. Roofline: the least time if FLOPs, estimated bytes over HBM
and estimated bytes over links overlap, each at its peak rate; that of float32 products depends on their precision.
"""
NOTES = {
    "cpu": """Compiled for CPU devices. The program is partitioned as on TPUs or GPUs; its temporaries differ, because
XLA widens bfloat16 to float32 on a CPU and schedules otherwise. The estimate counts in the dtypes of the models.
"""
    + NOTE,
    "tpu": """Compiled by the TPU's compiler: temporaries, padding and peak are those of the program that would run.
FLOPs and received bytes are not read off such a program; the roofline takes the estimates.
"""
    + NOTE,
}


class PlanError(ValueError):
    """A plan that cannot be made."""


def as_read(config: ExperimentConfig, pretrained: Collection[Pretrained], catalog: Catalog) -> Catalog:
    """The catalog as the models of a config read it.

    The tokenizers of pretrained models say which tokens codes and instruction are.
    Without a tokenizer codes come last, and every CHARACTERS characters of an
    instruction count as a token; what a chat template adds does not count.

    Args:
      config: of the run.
      pretrained: its pretrained models, which may lack tokenizers.
      catalog: of the run.

    Raises:
      ValueError: as `serving.catalogs.catalog_for`.
    """
    prompt = config.data.prompt
    read = [one for one in pretrained if (Path(one.config.directory) / TOKENIZER_FILE).is_file()]
    if read or (pretrained and prompt.kind == "item"):
        return catalog_for(read or pretrained, catalog, prompt)
    for one in pretrained:
        catalog = catalog.behind(one.model.vocab_size, one.bos)
    if prompt.kind == "item":
        return catalog
    head, _, tail = (prompt.system + prompt.template).partition(PLACEHOLDER)

    def tokens(text: str) -> tuple[int, ...]:
        return (catalog.bos,) * math.ceil(len(text) / CHARACTERS)

    bos = (catalog.bos,)
    instruction = Instruction(
        bos + tokens(head + prompt.before),
        tokens(prompt.after + prompt.separator + prompt.before),
        tokens(prompt.after + tail + prompt.before),
        bos + tokens(head + tail + prompt.before),
    )
    return dataclasses.replace(catalog, instruction=instruction)


def with_batch(config: ExperimentConfig, per_device: int, parts: int) -> ExperimentConfig:
    """Sets the batch sizes of a config.

    Args:
      config: the config.
      per_device: rows of a batch on each part.
      parts: parts into which the mesh splits a batch.
    """
    names = ("train_target", "train_draft", "train_align", "teacher", "evaluate")
    sections = {name: section for name in names if (section := getattr(config, name)) is not None}
    batches = {name: dataclasses.replace(section, batch_size=per_device * parts) for name, section in sections.items()}
    return dataclasses.replace(config, **batches)


def plan(
    config: ExperimentConfig,
    catalog: Catalog,
    chip: Chip,
    *,
    steps: tuple[str, ...],
    per_device: int | None = None,
    tpus: Sequence[Any] | None = None,
) -> list[dict]:
    """Compiles steps of a run for the devices of config.mesh and measures them.

    Args:
      config: of the run.
      catalog: of the run.
      chip: for the roofline.
      steps: names in `STEPS`.
      per_device: rows of a batch per device along the mesh axes data and fsdp; None for
        the batches of the config.
      tpus: TPUs to compile for (`tpu_devices`); None for JAX's devices, which are CPUs.

    Returns:
      Per step, the figures of `figures`.

    Raises:
      PlanError: a step is unknown.
      ShardingError: the devices or batches do not fit the mesh.
      HFConfigError: a pretrained model cannot be read.
      DecodeError: the widths do not fit the catalog.
    """
    if stray := [name for name in steps if name not in STEPS]:
        raise PlanError(f"step {stray[0]!r} is unknown; expected some of {', '.join(STEPS)}")
    if "train" in steps and config.train_target is None:
        raise PlanError("step 'train': the target is not trained (train_target=None); leave this step out")
    mesh, pretrained = make_mesh(config.mesh, tpus), describe_models(config)
    if per_device is not None:
        config = with_batch(config, per_device, mesh.shape["data"] * mesh.shape["fsdp"])
    catalog = as_read(config, pretrained.values(), catalog)
    check_positions(pretrained.values(), catalog, config.data.history)
    made = Steps(config, catalog, pretrained, mesh)
    check_mesh({name: model.config for name, model in made.models.items()}, mesh)
    check_batches(config, mesh)
    measure = figures if tpus is None else tpu_figures
    return [measure(getattr(made, STEPS[name])(), chip, made) for name in steps]


def figures(step: Step, chip: Chip, of: Steps) -> dict:
    """Compiles a step and reports what it needs of one device.

    Args:
      step: the step.
      chip: for the roofline.
      of: the steps of the run.

    Returns:
      Figures by name, as compiled and (under "estimate") as counted. Names with _gib
      are GiB. "tokens" counts the tokens of a row in one pass.
    """
    began = time.monotonic()
    compiled = step.lower().compile()
    seconds = time.monotonic() - began
    program = read_program(compiled.as_text())
    most, least = program.cost(max), program.cost(min)
    return _figures(step, chip, of, compiled, most[FLOPS]) | {
        "flops": most[FLOPS],
        "flops_least": least[FLOPS],
        "received_bytes": sum(most[kind] for kind in COLLECTIVES),
        "received_bytes_least": sum(least[kind] for kind in COLLECTIVES),
        "collectives": {kind: most[kind] for kind in COLLECTIVES if most[kind]},
        "compile_seconds": round(seconds, 1),
    }


def tpu_figures(step: Step, chip: Chip, of: Steps) -> dict:
    """Compiles a step by the TPU's compiler and reports what it needs of one device.

    Args: see `figures`.

    Returns:
      The figures of `figures` but FLOPs and received bytes, and "padding_gib", what the
      tiles of a TPU add to the arguments. It counts in the peak.
    """
    began = time.monotonic()
    lowered = step.lower()
    compiled = lowered.compile()
    seconds, added = time.monotonic() - began, padding(lowered, compiled) / GIB
    found = _figures(step, chip, of, compiled, None)
    found["peak_gib_per_device"] += added
    return found | {"padding_gib": added, "compile_seconds": round(seconds, 1)}


def _figures(step: Step, chip: Chip, of: Steps, compiled: jax.stages.Compiled, flops: float | None) -> dict:
    """Reports memory, the estimate, and the roofline of `flops` or of estimated FLOPs."""
    memory: Any = compiled.memory_analysis()
    mesh = dict(of.mesh.shape)
    kinds = {kind: bytes_on_device(tree) for kind, tree in step.on_device.items()}
    there, temporaries = sum(kinds.values()), memory.temp_size_in_bytes
    made = memory.output_size_in_bytes - memory.alias_size_in_bytes
    gradients = bytes_on_device(step.trained)
    needs = together([one.needs(mesh, whole_bytes(step.trained)) for one in step.passes])
    cache = bytes_on_device(step.cache) / mesh["tensor"]
    estimated = there + gradients + cache + needs.activations + needs.logits + needs.gathered
    work = (needs.flops if flops is None else flops) * product_time(step.passes, chip)
    time_ = roofline(chip, flops=work, hbm_bytes=needs.hbm_bytes, received=needs.received)
    return {
        "step": step.name,
        "devices": of.mesh.size,
        **mesh,
        "rows": step.rows,
        "tokens": step.passes[0].tokens,
        **{f"{kind}_gib": size / GIB for kind, size in kinds.items()},
        "cache_gib": cache / GIB,
        "temporaries_gib": temporaries / GIB,
        "peak_gib_per_device": (there + temporaries + made) / GIB,
        "estimate": {
            "gradients_gib": gradients / GIB,
            "activations_gib": needs.activations / GIB,
            "logits_gib": needs.logits / GIB,
            "gathered_gib": needs.gathered / GIB,
            "peak_gib_per_device": estimated / GIB,
            "flops": needs.flops,
            "hbm_bytes": needs.hbm_bytes,
            "received_bytes": needs.received,
        },
        "roofline_seconds": time_.seconds,
        "roofline_bound": time_.bound,
    }


def bytes_on_device(tree) -> float:
    """Counts the bytes of a tree of shapes on one device, by their shardings.

    A shape without a sharding lies on the device as a whole.
    """

    def one(leaf) -> float:
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return float(sum(map(one, jax.tree.leaves(tree))))


def whole_bytes(tree) -> float:
    """Counts the bytes of a tree of shapes over all devices."""
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))


def table(rows: list[dict]) -> Table:
    """Makes a table of the figures, with a column for each step."""

    def line(label, value, form="{:.2f}"):
        return [label, *(form.format(value(row)) for row in rows)]

    def read(label, name, unit):
        return [label, *(f"{row[name] / unit:.2f}" if name in row else ABSENT for row in rows)]

    def estimate(name):
        return lambda row: row["estimate"][name]

    cells = [
        line("rows in a batch", lambda row: row["rows"], "{}"),
        line("tokens of a row", lambda row: row["tokens"], "{}"),
        line("parameters, GiB", lambda row: row["parameters_gib"]),
        line("optimizer, GiB", lambda row: row["optimizer_gib"], "{:.3f}"),
        line("cache, GiB", lambda row: row["cache_gib"]),
        line("others that stay, GiB", lambda row: row["other_gib"]),
        line("temporaries as compiled, GiB", lambda row: row["temporaries_gib"]),
        read("padding of arguments as compiled, GiB", "padding_gib", 1),
        line("peak as compiled, GiB", lambda row: row["peak_gib_per_device"]),
        line("  activations, estimated, GiB", estimate("activations_gib")),
        line("  logits, estimated, GiB", estimate("logits_gib")),
        line("  gathered weights, estimated, GiB", estimate("gathered_gib")),
        line("  gradients, GiB", estimate("gradients_gib"), "{:.3f}"),
        line("peak, estimated, GiB", estimate("peak_gib_per_device")),
        read("TFLOPs as compiled", "flops", 1e12),
        read("  at least", "flops_least", 1e12),
        line("TFLOPs, estimated", lambda row: row["estimate"]["flops"] / 1e12),
        read("GB received as compiled", "received_bytes", 1e9),
        read("  at least", "received_bytes_least", 1e9),
        line("GB received, estimated", lambda row: row["estimate"]["received_bytes"] / 1e9),
        line("GB over HBM, estimated", lambda row: row["estimate"]["hbm_bytes"] / 1e9),
        line("roofline, ms", lambda row: 1e3 * row["roofline_seconds"], "{:.1f}"),
        line("  bound by", lambda row: row["roofline_bound"], "{}"),
        line("compiled (or loaded) in, s", lambda row: row["compile_seconds"], "{}"),
    ]
    return Table("Per device", ["", *(row["step"] for row in rows)], cells)
