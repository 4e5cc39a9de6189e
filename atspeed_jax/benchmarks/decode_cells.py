"""The cells of suite `decode`: what is measured, and whether it fits."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax

from atspeed_jax.benchmarks.hugging_face import missing
from atspeed_jax.benchmarks.pair import Pair
from atspeed_jax.decoding.config import Widths
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.wide_shapes import SHAPES, shape_named, widened_config
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import Setting
from atspeed_jax.utils.ranges import (
    BatchSize,
    Beams,
    Nodes,
    PromptTokens,
    Range,
    Repeats,
    Samples,
    Seed,
    Users,
    check_ranges,
)

PAIR = "pair"  # the shape of the trained pair itself
Method = Literal["plain", "speculative", "popularity", "hf", "whole_prompt"]
DrawingMode = Literal["relaxed", "coupled"]
# Modules whose code decides what is timed: another code makes another cell.
_TIMED = ("models", "decoding", "items", "serving/decoders.py", "benchmarks")


class SuiteError(ValueError):
    """A suite that cannot be measured."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """A tree to be drafted.

    Attributes:
      widths: drafted nodes per level, raised to what K needs.
      budget: nodes that a call reads; None for all.
      beams: the K that the tree is for; None for every K.
    """

    widths: Widths
    budget: Nodes | None = None
    beams: Beams | None = None

    @classmethod
    def parse(cls, text: str) -> Tree:
        """Reads a tree: "128,64,64", "20:128,64,64" (for K=20), "128,64,64/192" (a
        budget of 192 nodes).

        Raises:
          SuiteError: any other text.
        """
        beams, _, rest = text.rpartition(":")
        widths, _, budget = rest.partition("/")
        try:
            numbers: Widths = tuple("all" if part == "all" else int(part) for part in widths.split(","))
            return cls(numbers, int(budget) if budget else None, int(beams) if beams else None)
        except ValueError:
            raise SuiteError(
                f"--settings={text}: expected widths such as all,64,96, with K: before them for one K, and /M behind "
                "them for a budget"
            ) from None


@dataclasses.dataclass(frozen=True)
class DecodeSuite:
    """What is measured: every shape with every K, batch and prompt.

    Attributes:
      shapes: names of `models.widen.SHAPES`, or "pair" for the trained target itself.
      beams, batches, prompts: K, users at once, and tokens per prompt, BOS apart.
      methods: "plain" is always measured. "hf" is `generate` of transformers, held to
        the catalog. "whole_prompt" reads the shared head of an instruction for each user.
      modes: drawing modes that are measured beside strict mode.
      trees: what speculation drafts; none for what the run decodes with.
      dtype: that both models compute in.
      tune: whether the tuner chooses what speculation drafts, cell by cell, where no
        trees are given.
      unrolled: whether layers lie side by side.
      users: timed users per cell, in three batches at least.
      repeats: timings of a batch.
      seconds: budget of the whole suite; None for no limit.
      noise: whether, below float32, plain beam search is compared with itself in other
        batches.
      parts: whether the model calls of strict mode are timed alone as well.
      trace: whether a trace says where the device's time goes.
      threads: programs of a shape that are compiled at once, where trees are given.
      samples: of the bootstrap over batches.
      seed: of draws and bootstrap.
    """

    shapes: tuple[str, ...] = (PAIR,)
    beams: tuple[Beams, ...] = (1, 5, 20)
    batches: tuple[BatchSize, ...] = (1, 4)
    prompts: tuple[PromptTokens, ...] = (80,)
    methods: tuple[Method, ...] = ("plain", "speculative", "popularity")
    modes: tuple[DrawingMode, ...] = ()
    trees: tuple[Tree, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    tune: bool = False
    unrolled: bool = True
    users: Users = 20
    repeats: Repeats = 3
    seconds: Annotated[float, Range(1, 1e7)] | None = None
    noise: bool = False
    parts: bool = False
    trace: bool = False
    threads: Annotated[int, Range(1, 64)] = 1
    samples: Samples = 2000
    seed: Seed = 0

    @classmethod
    def of(cls, *, settings: str, stacked: bool, **fields: Any) -> DecodeSuite:
        """Makes the suite that flags describe.

        Args:
          settings: trees with semicolons between (`Tree.parse`); without any, the tuner
            chooses.
          stacked: whether layers are stacked.
          fields: the other fields by name.

        Raises:
          SuiteError, ValueError: a value that cannot be used.
        """
        trees = tuple(Tree.parse(text) for text in settings.split(";") if text)
        return cls(**fields, trees=trees, tune=not trees, unrolled=not stacked)

    def __post_init__(self):
        check_ranges(self)
        known = {"shapes": (PAIR, *SHAPES), "methods": get_args(Method), "modes": get_args(DrawingMode)}
        for name, names in known.items():
            if stray := [value for value in getattr(self, name) if value not in names]:
                raise SuiteError(f"--{name}={stray[0]}: expected some of {', '.join(names)}")
        for name in ("shapes", "beams", "batches", "prompts"):
            if not getattr(self, name):
                raise SuiteError(f"--{name} is empty: give at least one")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination: its methods are timed side by side.

    Attributes:
      shape, beams, batch, prompt: see `DecodeSuite`.
    """

    shape: str
    beams: int
    batch: int
    prompt: int

    @property
    def title(self) -> str:
        return f"{self.shape}, K={self.beams}, batch {self.batch}, prompt {self.prompt}"


@dataclasses.dataclass(frozen=True)
class Way:
    """A row of a cell.

    Attributes:
      method, mode: names of the row.
      setting: how lists are decoded.
    """

    method: Method
    mode: str
    setting: Setting


def check_suite(pair: Pair, suite: DecodeSuite) -> None:
    """Raises SuiteError unless the suite fits the pair and what is installed."""
    if "hf" in suite.methods:
        if lack := missing("torch", "transformers"):
            raise SuiteError(f"--methods=hf {lack}, or leave hf out")
        if (norm := pair.decode.score_norm) != "vocab":
            raise SuiteError(
                f"--methods=hf: the pair decodes with score_norm={norm!r}, and generate scores by 'vocab' alone: "
                "leave hf out"
            )
    if "whole_prompt" in suite.methods and not len(pair.head):
        raise SuiteError("--methods=whole_prompt: the pair's prompts have no instruction to share: leave it out")
    levels = pair.id_tokens.shape[1] - 1
    for tree in suite.trees:
        if len(tree.widths) != levels:
            given = ",".join(map(str, tree.widths))
            raise SuiteError(
                f"--settings={given}: {len(tree.widths)} widths, expected {levels}: the ids of the pair have "
                f"{levels + 1} codes, and a width belongs to each level but the last"
            )
        most = max(suite.beams) if tree.beams is None else tree.beams
        if tree.budget is not None and tree.budget < most:
            given = f"{','.join(map(str, tree.widths))}/{tree.budget}"
            raise SuiteError(
                f"--settings={given}: a budget of {tree.budget} nodes cannot hold K={most}: give {most} or more, or "
                f"put a smaller K in front, as {tree.budget}:{given}"
            )


def cells_of(suite: DecodeSuite) -> list[Cell]:
    """Lists the cells, shape by shape, smaller ones first within a shape."""
    return [Cell(*one) for one in itertools.product(suite.shapes, suite.beams, suite.batches, suite.prompts)]


def config_of(pair: Pair, suite: DecodeSuite, shape: str) -> LlamaConfig:
    """Returns the config of the target of a shape in the suite's dtype.

    Raises:
      WidenError: the pair's target does not fit into the shape.
    """
    narrow = dataclasses.replace(pair.target, dtype=suite.dtype)
    return narrow if shape == PAIR else widened_config(narrow, shape, shape_named(shape))


def ways_of(pair: Pair, suite: DecodeSuite, cell: Cell, decoders: Decoders, tuned: Setting | None = None) -> list[Way]:
    """Lists what is timed in a cell, a baseline before what is compared with it.

    Args:
      pair, suite, cell: what is measured.
      decoders: of the cell's shape.
      tuned: the tuner's choice for this cell; None for the trees of the suite, else the
        tree of the run. Where it is plain beam search, nothing speculates.
    """
    plain = Setting.beam_search(cell.beams, pair.decode.score_norm)
    trees = [tree for tree in suite.trees if tree.beams in (None, cell.beams)] or [
        Tree(pair.decode.widths, pair.decode.budget)
    ]
    drafted = [dataclasses.replace(pair.decode, widths=tree.widths, budget=tree.budget) for tree in trees]
    strict = [decoders.fitted(Setting.strict("draft", cell.beams, tree), lambda _: None) for tree in drafted]
    if tuned is not None:
        strict = [tuned] if tuned.method == "speculative" else []
    strict = list(dict.fromkeys(strict))
    ways = [Way("plain", "strict", plain)]
    if "speculative" in suite.methods:
        ways += [Way("speculative", "strict", setting) for setting in strict]
    if "popularity" in suite.methods:
        ways += [
            Way("popularity", "strict", dataclasses.replace(setting, drafter="popularity")) for setting in strict[:1]
        ]
    if "hf" in suite.methods:
        ways.append(Way("hf", "strict", plain))
    if "whole_prompt" in suite.methods:
        ways += [Way("whole_prompt", "strict", setting) for setting in (plain, *strict[:1])]
    for mode in suite.modes:
        drawn = [setting.searching(mode=mode, budget=None) for setting in strict[:1]]
        ways += [Way("plain", setting.baseline.search.mode, setting.baseline) for setting in drawn]
        ways += [Way("speculative", mode, setting) for setting in drawn]
    return list(dict.fromkeys(ways))


def identity(pair: Pair, suite: DecodeSuite, cell: Cell, ways: Sequence[Way]) -> str:
    """Names a cell by everything that its times depend on, in 16 hexadecimal digits."""
    timed = {
        name: getattr(suite, name)
        for name in ("dtype", "unrolled", "users", "repeats", "noise", "parts", "trace", "seed", "tune")
    }
    about = {
        "cell": dataclasses.asdict(cell),
        "ways": [[way.method, way.mode, way.setting.label] for way in ways],
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "code": code_state(),
        "pair": pair.fingerprint,
    }
    return hashlib.sha256(json.dumps(about | timed, sort_keys=True).encode()).hexdigest()[:16]


def code_state(*more: str) -> str:
    """Returns a hash of the code that is timed, committed or not.

    Args:
      more: further rooms whose code is timed.
    """
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for name in (*_TIMED, *more):
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def finished(rows: Sequence[Mapping]) -> set[str]:
    """Returns the identities of the cells whose rows are all there."""
    return {row["cell"] for row in rows if row.get("finished")}
