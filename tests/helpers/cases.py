"""Random catalogs, tables and prompts of fixed shapes: values vary, nothing recompiles."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.decoding.base import Prompt, Result
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter, PopularityDrafter
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.trie import Trie, TrieCapacity, build_trie, popularity_prior
from oracle import child_scores
from table_model import COUNTED, ROWS, TableStep, table_logits

BOS, FIRST_CODE = 1, 2
STEP = TableStep()
TRIES = ("full", "some", "few", "chains", "one_root", "one_leaf")
TABLES = ("coarse", "ladder", "smooth")
DRAFTS = ("perfect", "near", "random", "adversarial")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is compiled once: codes per level, settings, drafter ("model" or "popularity"), batch, prompt length.

    row_share: see `SearchConfig`.
    """

    sizes: tuple[int, ...]
    beams: int
    widths: tuple[int, ...]
    gamma: int
    norm: str
    drafter: str = "model"
    batch: int = 8
    prompt: int = 5
    budget: int | None = None
    row_share: int = 1

    def __str__(self):
        widths = "-".join(map(str, self.widths)) or "none"
        name = f"L{len(self.sizes)}_K{self.beams}_W{widths}_gamma{self.gamma}_{self.norm}_{self.drafter}"
        return name if self.budget is None else f"{name}_M{self.budget}"

    @property
    def vocab(self) -> int:
        return FIRST_CODE + sum(self.sizes)

    @property
    def capacity(self) -> TrieCapacity:
        return TrieCapacity(tuple(itertools.accumulate(self.sizes, operator.mul)), self.sizes)

    @property
    def tables(self) -> tuple[str, ...]:
        """Kinds of table that are exact under this norm, and the smooth one."""
        return TABLES if self.norm == "vocab" else ("ladder", "smooth")


# Widths of K, all prefixes, in between, below K; K of 1, beyond the catalog; ids of 1 to 4 codes.
SHAPES = (
    Shape((5, 3, 3, 3), 4, (4, 4, 4), 3, "vocab", row_share=2),
    Shape((5, 3, 3, 3), 4, (5, 15, 45), 3, "trie"),
    Shape((5, 3, 3, 3), 4, (4, 6, 8), 1, "vocab"),
    Shape((5, 3, 3, 3), 4, (4, 6, 9), 3, "vocab", "popularity", row_share=2),
    Shape((4, 3, 3), 1, (1, 1), 2, "vocab"),
    Shape((4, 3, 3), 12, (4, 12), 1, "vocab"),
    Shape((4, 3, 3), 40, (4, 12), 2, "trie"),
    Shape((6, 3, 3), 5, (5, 8), 2, "trie", row_share=4),
    Shape((7, 4), 4, (4,), 1, "vocab"),
    Shape((5, 4), 3, (3,), 3, "trie", "popularity"),
    Shape((9,), 4, (), 1, "vocab"),
    Shape((5, 3, 3, 3), 4, (5, 8, 12), 3, "vocab", budget=12, row_share=2),
    Shape((5, 3, 3, 3), 4, (2, 3, 2), 2, "vocab"),
)
FAST = (0, 1, 2, 3, 4, 7, 9, 11, 12)  # of SHAPES: both norms and drafters, a budget, row_share, 2 to 4 codes, K = 1
MORE_SHAPES = (  # for the slow suite
    Shape((5, 3, 3, 3), 4, (4, 5, 7), 2, "trie", row_share=4),
    Shape((4, 3, 3, 3), 2, (2, 3, 2), 1, "trie", "popularity"),
    Shape((3, 3, 2, 2, 2), 6, (3, 6, 8, 8), 2, "vocab", row_share=2),
    Shape((6, 3, 3), 5, (5, 5), 2, "trie", "popularity"),
    Shape((8, 3, 3), 7, (7, 10), 3, "vocab"),
    Shape((5, 4), 3, (3,), 3, "trie"),
    Shape((5, 3, 3, 3), 3, (5, 8, 12), 2, "trie", budget=6),
    Shape((5, 3, 3, 3), 4, (5, 9, 9), 1, "vocab", "popularity", budget=5, row_share=2),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """One decode of `shape.batch` users. exact: scores carry no rounding, so lists and scores must agree to the bit."""

    shape: Shape
    ids: list[tuple[int, ...]]
    counts: np.ndarray
    trie: Trie
    table: np.ndarray
    draft: Any
    prompt: Prompt
    exact: bool

    def sequences(self) -> list[tuple[int, ...]]:
        """Each user's prompt without padding."""
        tokens, valid = np.asarray(self.prompt.tokens), np.asarray(self.prompt.valid)
        return [tuple(t[v].tolist()) for t, v in zip(tokens, valid, strict=True)]

    def plain(self, step=COUNTED, prompt: Prompt | None = None, **mode) -> Result:
        shape = self.shape
        how = {"beams": shape.beams, "score_norm": shape.norm, **mode}
        return fetch(beam_search(step, self.table, self.trie, prompt or self.prompt, **how))

    def speculative(self, step=COUNTED, prompt: Prompt | None = None, **mode) -> Result:
        """mode: further fields of `SearchConfig`."""
        return fetch(self.decode(step, prompt, **mode))

    def decode(self, step, prompt: Prompt | None = None, **mode) -> Result:
        """`speculative`, the result left on the device."""
        shape = self.shape
        drafter = ModelDrafter(STEP) if shape.drafter == "model" else PopularityDrafter()
        own = {"budget": shape.budget, "row_share": shape.row_share}
        config = SearchConfig(shape.widths, shape.gamma, shape.norm, beams=shape.beams, **(own | mode))
        return speculative_beam_search(
            step, self.table, drafter, self.draft, trie=self.trie, prompt=prompt or self.prompt, config=config
        )

    def propose(self):
        """The drafter for `oracle.strict_walk`."""
        if self.shape.drafter == "model":
            logits = table_logits(self.draft)
            return lambda trie, prompt, prefix: child_scores(trie, prompt, prefix, logits, self.shape.norm)
        below = {}
        for one, count in zip(self.ids, self.counts, strict=True):
            for level in range(len(one) + 1):
                below[one[:level]] = below.get(one[:level], 0) + 1 + int(count)
        return lambda trie, _, prefix: {t: math.log(below[(*prefix, t)] / below[prefix]) for t in trie[prefix]}


def fetch(result: Result) -> Result:
    return jax.tree.map(np.asarray, result)


def items_of(result: Result, row: int) -> list[tuple[int, ...]]:
    """The valid items of one user as token tuples, best first."""
    return [tuple(t.tolist()) for t, ok in zip(result.tokens[row], result.valid[row], strict=True) if ok]


def sampled(shapes: tuple[Shape, ...]) -> list:
    """SHAPES as parameters, of which the fast suite takes the shapes FAST."""
    return [pytest.param(shape, marks=() if n in FAST else pytest.mark.slow) for n, shape in enumerate(shapes)]


def make_ids(sizes, kind: str, beams: int, rng) -> list[tuple[int, ...]]:
    """Sorted distinct ids as tokens.

    few: fewer than K; chains: one child everywhere below level 1; one_root, one_leaf: all share the first or last code.
    """
    offsets = FIRST_CODE + np.cumsum((0, *sizes[:-1]))
    everything = list(itertools.product(*map(range, sizes)))
    if kind == "full":
        codes = everything
    elif kind == "few":
        most = max(1, min(beams - 1, len(everything)))
        codes = [everything[i] for i in rng.choice(len(everything), rng.integers(1, most + 1), replace=False)]
    elif kind == "chains":
        codes = [(first, *(int(rng.integers(n)) for n in sizes[1:])) for first in range(sizes[0])]
    elif kind == "one_root":
        codes = [c for c in everything if c[0] == everything[-1][0]]
    elif kind == "one_leaf":
        codes = [c for c in everything if c[-1] == 0]
    else:
        size = rng.integers(1, len(everything) + 1)
        codes = [everything[i] for i in rng.choice(len(everything), size, replace=False)]
    return sorted(tuple(int(c + o) for c, o in zip(code, offsets, strict=True)) for code in codes)


def make_table(sizes, kind: str, rng) -> np.ndarray:
    """[ROWS, V] float32 logits of one kind.

    coarse: three values, and a PAD logit (never a child) so large that it alone is the log-sum-exp over the vocabulary.
    ladder: the tokens of a level are a permutation of multiples of 64, so that the largest child alone is the
    log-sum-exp, whichever children a trie allows; the PAD logit does the same for the vocabulary. Both have exact
    scores on a coarse grid, full of ties.
    smooth: normal values, no ties.
    """
    vocab = FIRST_CODE + sum(sizes)
    if kind == "smooth":
        return (2 * rng.normal(size=(ROWS, vocab))).astype(np.float32)
    table = np.zeros((ROWS, vocab))
    if kind == "coarse":
        table[:, FIRST_CODE:] = -rng.integers(0, 3, (ROWS, vocab - FIRST_CODE))
    else:
        blocks = [rng.permuted(np.tile(np.arange(n), (ROWS, 1)), axis=1) for n in sizes]
        table[:, FIRST_CODE:] = -64 * np.concatenate(blocks, 1)
    table[:, 0] = 64 + rng.integers(0, 3, ROWS)
    return table.astype(np.float32)


def make_draft(target: np.ndarray, sizes, kind: str, table_kind: str, rng) -> np.ndarray:
    """A drafter's table.

    perfect: the target's; near: two rows in three are; random: another table; adversarial: preferences reversed.
    """
    if kind == "perfect":
        return target
    if kind == "adversarial":
        reverse = target.copy()
        reverse[:, FIRST_CODE:] *= -1
        if table_kind != "smooth":  # keep the PAD logit above all others
            reverse[:, FIRST_CODE:] += target[:, FIRST_CODE:].min()
        return reverse
    other = make_table(sizes, table_kind, rng)
    return other if kind == "random" else np.where(rng.random((ROWS, 1)) < 1 / 3, other, target)


def make_prompt(shape: Shape, rng) -> Prompt:
    """Ragged prompts; user 0 has BOS alone. Half of the time the padding holds arbitrary tokens, which nobody reads."""
    lengths = rng.integers(1, shape.prompt + 1, shape.batch)
    lengths[0] = 1
    valid = np.arange(shape.prompt) >= shape.prompt - lengths[:, None]
    tokens = rng.integers(FIRST_CODE, shape.vocab, valid.shape)
    tokens[np.arange(shape.batch), shape.prompt - lengths] = BOS
    if rng.random() < 0.5:
        tokens = np.where(valid, tokens, 0)
    return Prompt(jnp.asarray(tokens, jnp.int32), jnp.asarray(valid))


def make_batch(shape: Shape, rng, *, trie: str, table: str, draft: str) -> Batch:
    ids = make_ids(shape.sizes, trie, shape.beams, rng)
    counts = rng.integers(0, 50, len(ids))
    arrays = build_trie(np.array(ids), shape.capacity)
    target = make_table(shape.sizes, table, rng)
    if shape.drafter == "popularity":
        params = popularity_prior(arrays, np.array(ids), counts)
    else:
        params = make_draft(target, shape.sizes, draft, table, rng)
    return Batch(shape, ids, counts, arrays, target, params, make_prompt(shape, rng), table != "smooth")


def batches(shape: Shape, count: int, seed: int):
    """`count` random batches: kinds of trie, table and draft in turn, every combination before any repeats."""
    rng = np.random.default_rng((seed, *shape.sizes, shape.beams, *shape.widths, shape.gamma))
    combinations = list(itertools.product(TRIES, shape.tables, DRAFTS if shape.drafter == "model" else ("none",)))
    order = [int(i) for _ in range(-(-count // len(combinations))) for i in rng.permutation(len(combinations))]
    for index in order[:count]:
        trie, table, draft = combinations[index]
        yield make_batch(shape, rng, trie=trie, table=table, draft=draft)
