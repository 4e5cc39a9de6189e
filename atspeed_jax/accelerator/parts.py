"""The parts of a run on an accelerator, the most wanted first, and how one is measured.

Every part measures in a separate process (`accelerator.run`), so that a part that
fails or hangs costs no other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np

from atspeed_jax.accelerator.steps import Kind, StepSuite, measure_step
from atspeed_jax.benchmarks.decode import measure_decode, read_rows
from atspeed_jax.benchmarks.decode_cells import DecodeSuite, Method, SuiteError, Tree, code_state
from atspeed_jax.benchmarks.decode_memory import fitting
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.utils import files
from atspeed_jax.utils.ranges import BatchSize, Beams, PromptTokens, Range, Repeats, Users, check_ranges

DECODE, STEPS = "decode.json", "steps.json"  # the rows of all parts
START_S = 25.0  # of a part's seconds, for its start, its last program and its end
# Widths per K that pay on a GPU: few nodes, since rows cost from about 250 on. The first
# shape is also measured with the second line.
TREES = "1:8,8,8;5:32,32,32;20:128,96,128/192"
FIRST_TREES = "20:128,64,64"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run measures.

    Attributes:
      shapes: of targets whose decoding is measured, the most wanted first.
      beams, batches, prompt: K, users at once, and tokens of a prompt, BOS apart.
      settings: trees (`Tree.parse`) with semicolons between. Empty: TREES, for the
        first shape also FIRST_TREES, for ids of 4 codes; else the tree of the pair's
        run.
      dtype: that targets and drafts compute in.
      users, repeats: timed users per cell, and timings of a batch.
      threads: programs that are compiled at once.
      step_shape, step_rows: target and batch of the training and of the alignment step.
      wide_beams, wide_prompt: K and prompt of a search for three codes by the last
        shape alone; 0 for none.
      generate: whether `generate` of transformers decodes the first shape, at the
        largest K.
    """

    shapes: tuple[str, ...] = ("llama-7b", "110m", "1b", "qwen3-1.7b")
    beams: tuple[Beams, ...] = (20, 5, 1)
    batches: tuple[BatchSize, ...] = (1, 8)
    prompt: PromptTokens = 100
    settings: str = ""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    users: Users = 40
    repeats: Repeats = 3
    threads: Annotated[int, Range(1, 64)] = 8
    step_shape: str = "1b"
    step_rows: BatchSize = 128
    wide_beams: Annotated[int, Range(0, 10_000)] = 256
    wide_prompt: PromptTokens = 1000
    generate: bool = True

    def __post_init__(self):
        check_ranges(self)
        for name in ("shapes", "beams", "batches"):
            if not getattr(self, name):
                raise SuiteError(f"--{name} is empty: give at least one")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
      name: of the part.
      seconds: after which the part is ended.
      suite: what is measured.
      codes: number of first codes of the ids that are kept; None for all.
    """

    name: str
    seconds: float
    suite: DecodeSuite | StepSuite
    codes: int | None = None

    def identity(self, pair: Path) -> str:
        """Names the part by everything that its rows depend on, the device apart."""
        code = code_state("accelerator", "alignment", "training")
        about = [self.name, repr(self.suite), self.codes, code, jax.__version__]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(pair.read_bytes())
        return digest.hexdigest()[:16]


def parts_of(plan: Plan, levels: int) -> list[Part]:
    """Lists the parts of a plan, the most wanted first.

    Args:
      plan: what is measured.
      levels: codes of an id.

    Raises:
      SuiteError, ValueError: a value of the plan that cannot be measured.
    """
    first, last = plan.shapes[0], plan.shapes[-1]

    def trees(shape: str) -> tuple[Tree, ...]:
        usual = f"{TREES};{FIRST_TREES}" if shape == first else TREES
        settings = plan.settings or (usual if levels == 4 else "")
        return tuple(Tree.parse(text) for text in settings.split(";") if text)

    def decode(name: str, shape: str, seconds: float, codes: int | None = None, **fields) -> Part:
        given = {"beams": plan.beams, "prompts": (plan.prompt,), "trees": trees(shape), "users": plan.users}
        given |= {"methods": ("plain", "speculative"), "repeats": plan.repeats, "threads": plan.threads}
        suite = DecodeSuite(**{**given, "shapes": (shape,), "dtype": plan.dtype, "trace": True, **fields})
        return Part(name, seconds, suite, codes)

    def step(kind: Kind) -> Part:
        shared = {"tokens": plan.prompt, "beams": max(plan.beams), "dtype": plan.dtype, "repeats": plan.repeats + 2}
        return Part(f"{kind} {plan.step_shape}", 90.0, StepSuite(kind, plan.step_shape, plan.step_rows, **shared))

    cells = [
        decode(f"decode {shape}, batch {batch}", shape, 240.0 if shape == first else 120.0, batches=(batch,))
        for batch in plan.batches
        for shape in plan.shapes
    ]
    parts = [cells[0], step("train"), step("align"), *cells[1:]]
    if plan.wide_beams:
        wide = {"beams": (plan.wide_beams,), "prompts": (plan.wide_prompt,), "methods": ("plain",), "trees": ()}
        name = f"decode {last}, {plan.wide_beams} beams, prompt {plan.wide_prompt}, 3 codes"
        parts.append(decode(name, last, 120.0, min(3, levels), batches=plan.batches, **wide))
    if plan.generate:
        methods: tuple[Method, ...] = ("plain", "hf")
        alone = {"beams": (max(plan.beams),), "batches": plan.batches[:1], "trees": (), "trace": False}
        parts.append(decode(f"generate {first}", first, 150.0, methods=methods, **alone))
    return parts


def run_part(part: Part, pair: Pair, out: Path, say: Callable[[str], None]) -> bool:
    """Measures a part in this process.

    Args:
      part: what is measured.
      pair: the trained pair.
      out: directory of the rows.
      say: called with a line.

    Returns:
      Whether all of the part is measured; False if its seconds were too few.
    """
    if isinstance(part.suite, StepSuite):
        row = measure_step(pair, part.suite, say)
        rows = [one for one in step_rows(out) if one["part"] != part.name]
        files.write_json(out / STEPS, files.jsonable([*rows, row | {"part": part.name}]))
        return True
    if part.codes is not None:
        pair = first_codes(pair, part.codes)
    suite = dataclasses.replace(part.suite, seconds=max(1.0, part.seconds - START_S))
    wanted = {dataclasses.astuple(cell) for cell in fitting(pair, suite)[0]}
    rows = measure_decode(pair, suite, out / DECODE, say)
    whole = {(row["shape"], row["K"], row["batch"], row["prompt"]) for row in rows if row["finished"]}
    return wanted <= whole


def decode_rows(out: Path) -> list[dict]:
    """Reads the rows of all parts that decode."""
    return read_rows(out / DECODE)


def step_rows(out: Path) -> list[dict]:
    """Reads the rows of training and alignment steps."""
    path = out / STEPS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def first_codes(pair: Pair, codes: int) -> Pair:
    """Cuts the ids of a pair to their first codes; prompts stay as they are."""
    if codes >= pair.id_tokens.shape[1]:
        return pair
    ids, place = np.unique(pair.id_tokens[:, :codes], axis=0, return_inverse=True)
    counts = np.bincount(place.reshape(-1), weights=pair.id_counts, minlength=len(ids))
    decode = dataclasses.replace(pair.decode, widths=pair.decode.widths[: codes - 1])
    return dataclasses.replace(pair, id_tokens=ids, id_counts=counts, decode=decode)


def names(parts: Sequence[Part]) -> str:
    """Lists the names of parts, for a message."""
    return "; ".join(part.name for part in parts)
