"""The settings of a search, what must hold among them, and widths for a catalog."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import numpy as np

from atspeed_jax.decoding.base import DecodeError, Mode, ScoreNorm
from atspeed_jax.decoding.selection import check_mode, selection_of
from atspeed_jax.items.catalog import MAX_LENGTH
from atspeed_jax.items.trie import prefix_counts
from atspeed_jax.utils.ranges import BatchSize, Beams, Nodes, PartialShare, Range, Temperature, Width, check_ranges

Widths = tuple[Width | Literal["all"], ...]


@dataclasses.dataclass(frozen=True)
class TreeConfig:
    """How a tree is drafted and scored, whatever K.

    Attributes:
      widths: W_1..W_{L-1}, drafted nodes per level, each an int or "all".
      gamma: most levels that are drafted deeper than the settled one.
      score_norm: "vocab" sums log-softmax over the whole vocabulary, "trie" over the
        allowed children. Under "trie" a prefix with one item left is finished: its
        remaining codes have probability 1, so it is neither drafted nor fed to a model,
        and widths count the open prefixes alone.
      budget: M, drafted nodes that a target call reads, the most promising of all
        levels (`decoding.budget`); None for all that the widths allow.
    """

    widths: Widths
    gamma: Annotated[int, Range(1, MAX_LENGTH)]
    score_norm: ScoreNorm
    budget: Nodes | None = None

    def __post_init__(self):
        check_ranges(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(TreeConfig):
    """Static settings of one decode, such as `SearchConfig((128, 64, 64), 3, "vocab",
    beams=20)`.

    `resolve` makes the widths ints, as decoding takes them. The settings of the tree
    (widths, gamma, score_norm, budget) are described in `TreeConfig`.

    Attributes:
      beams: K, prefixes kept per level.
      tolerance: share of the K beams' probability that a level may give up to be
        accepted without some beams that were not drafted, as long as the list loses no
        place. 0 gives the list of plain beam search (ALGORITHM.md section 6).
      mode: how beams are selected (`selection`). All but "strict" draw at random and
        need `Prompt.keys`.
        "strict": the K best.
        "stochastic": K items drawn without replacement from the model (stochastic beam
          search, Kool et al. 2019), the same draw for any drafter.
        "relaxed": per level K prefixes drawn without replacement from the softmax of
          their scores (AtSpeed-R, exact), by accepting or rejecting what the draft
          drew.
        "coupled": the law of "relaxed" in fewer calls. Target and draft draw with the
          same noise, so the list is the target's draw and a draft only has to cover it.
        "relaxed_reference": "relaxed" as the public reference does it, bias included.
      temperature: divides the logits of target and draft; 1 in strict mode.
      row_share: rounds after the first read the unfinished rows alone, 1/row_share of
        the batch at a time (`decoding.row_compaction`); 1 reads the whole batch.
    """

    beams: Beams
    tolerance: PartialShare = 0.0
    mode: Mode = "strict"
    temperature: Temperature = 1.0
    row_share: BatchSize = 4

    def __post_init__(self):
        super().__post_init__()
        check_mode(self.mode, self.temperature, self.score_norm)
        selection = selection_of(self.mode)
        # A draw that is given up, or left out unseen, would change the law of the list.
        if self.tolerance and selection.draws:
            raise DecodeError(f"tolerance={self.tolerance} with mode={self.mode!r}: only strict mode can give up beams")
        if self.budget is not None and selection.tests_draws:
            raise DecodeError(f"budget={self.budget} with mode={self.mode!r}: leaving out draws would change the law")
        if self.score_norm not in ("vocab", "trie"):
            raise DecodeError(f"score_norm={self.score_norm!r}: expected 'vocab' or 'trie'")

    @classmethod
    def of(cls, tree: TreeConfig, beams: int) -> SearchConfig:
        """Makes the strict search with K = `beams` that drafts this tree."""
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(TreeConfig)}
        return cls(beams=beams, **fields)

    def resolve(self, prefixes: tuple[int, ...]) -> SearchConfig:
        """Returns the same search with widths as ints, for one catalog.

        Args:
          prefixes: of the catalog, per depth 1..L (`prefixes_by_norm`).

        Raises:
          DecodeError: widths, or a budget, that can never hold the K beams.
        """
        widths = resolve_widths(self.widths, prefixes, self.beams)
        resolved = dataclasses.replace(self, widths=widths)
        resolved.resolved_widths(len(prefixes))  # raises for what can never work
        return resolved

    def resolved_widths(self, length: int) -> tuple[int, ...]:
        """Returns W_1..W_{L-1} as ints, as decoding takes them for ids of `length` codes.

        Raises:
          DecodeError: widths that hold "all" or are not length - 1, or a budget below
            K.
        """
        widths = tuple(width for width in self.widths if width != "all")
        if widths != self.widths:
            raise DecodeError(f"widths={self.widths}: 'all' must be resolved for a catalog first (`resolve`)")
        if len(self.widths) != length - 1:
            raise DecodeError(
                f"widths={self.widths}: ids of length {length} need {length - 1} widths, one per level but the last"
            )
        if self.budget is not None and self.budget < self.beams:
            raise DecodeError(f"budget={self.budget}: expected at least K={self.beams}, or no level can hold the beams")
        return widths


def prefixes_by_norm(id_tokens: np.ndarray) -> dict[ScoreNorm, tuple[int, ...]]:
    """Counts the prefixes of depth 1..L that a level can draft, for `resolve_widths`.

    Under "vocab" norm these are all prefixes, under "trie" norm those with several
    items below.

    Args:
      id_tokens: [U, L] sorted distinct ids.
    """
    return {"vocab": prefix_counts(id_tokens), "trie": prefix_counts(id_tokens, open_only=True)}


def raised_widths(widths: Widths, prefixes: tuple[int, ...], beams: int) -> Widths:
    """Raises each width to min(K, prefixes of its level), which can hold the K beams.

    `resolve_widths` refuses a wrong number of widths.

    Args:
      widths: L - 1 ints or "all".
      prefixes: prefixes of depth 1..L (`prefixes_by_norm`).
      beams: K.
    """
    least = [min(beams, have) for have in prefixes[:-1]]
    return tuple(width if width == "all" else max(width, need) for width, need in zip(widths, least, strict=False))


def resolve_widths(
    widths: Widths, prefixes: tuple[int, ...], beams: int, *, remedy: str = "raise it in widths, or lower K (beams)"
) -> tuple[int, ...]:
    """Turns widths into ints, none wider than its level.

    Args:
      widths: L - 1 ints or "all", the number of prefixes of that depth.
      prefixes: prefixes of depth 1..L (`prefixes_by_norm`).
      beams: K.
      remedy: what the message about a width that is too small ends in.

    Raises:
      DecodeError: a wrong number of widths, or a width below min(K, prefixes of its
        level), which could never hold the K beams.
    """
    if len(widths) != len(prefixes) - 1:
        raise DecodeError(
            f"widths={widths} has {len(widths)} entries; ids of length {len(prefixes)} need {len(prefixes) - 1}, one "
            "for each level but the last"
        )
    resolved = []
    for level, (width, have) in enumerate(zip(widths, prefixes, strict=False), start=1):
        if width != "all" and not isinstance(width, int):
            raise DecodeError(f"width {width!r} of level {level}: expected an int or 'all'")
        if width != "all" and width < min(beams, have):
            raise DecodeError(
                f"width {width} of level {level} is below min(K={beams}, {have} prefixes of that level) = "
                f"{min(beams, have)}: it could never hold the K beams; {remedy}"
            )
        # Under trie norm a level may have no open prefix; a level of no slots has no
        # shape.
        resolved.append(max(1, have if width == "all" else min(width, have)))
    return tuple(resolved)
