"""What a decoder is built from: one way to decode, as the command line and the tables
name it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from atspeed_jax.decoding.base import DecodeError, ScoreNorm
from atspeed_jax.decoding.config import SearchConfig, TreeConfig, Widths
from atspeed_jax.decoding.selection import selection_of

Method = Literal["beam_search", "speculative"]
DrafterName = Literal["none", "draft", "popularity"]
Constraint = Literal["trie", "levels"]


@dataclasses.dataclass(frozen=True)
class DecodeConfig(TreeConfig):
    """Section `decode` of a run's config: the drafted tree, and how the models lie in
    memory.

    A subclass of `TreeConfig`, not a holder of one, so that the command line says
    --config.decode.widths.

    Attributes:
      unroll: whether the layers of both models lie side by side (`Decoders.unrolled`):
        faster on every device, since stacked layers are copied in each call, but slower
        to compile.
    """

    unroll: bool = True


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to decode.

    Attributes:
      drafter: who drafts: the draft model, the popularity prior, or "none", which is
        plain beam search.
      search: what is searched for; its widths may hold "all". Plain beam search reads
        its beams, score_norm, mode and temperature alone.
      constraint: "trie", ids of items alone; or "levels", any known code of each level,
        as the paper's reference decodes: codes that no item has get the id
        `decoders.NO_ITEM`.
    """

    drafter: DrafterName
    search: SearchConfig
    constraint: Constraint = "trie"

    @classmethod
    def beam_search(cls, beams: int, score_norm: ScoreNorm) -> Setting:
        """Plain beam search with K = `beams`, the baseline of every speed-up."""
        return cls("none", SearchConfig((), 1, score_norm, beams=beams))

    @classmethod
    def strict(cls, drafter: DrafterName, beams: int, tree: TreeConfig) -> Setting:
        """Strict speculative beam search with K = `beams`; plain beam search for
        drafter "none".
        """
        if drafter == "none":
            return cls.beam_search(beams, tree.score_norm)
        return cls(drafter, SearchConfig.of(tree, beams))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Setting:
        """The setting that `row` was made of.

        Raises:
          DecodeError: `row` is not what `row` gives.
        """
        try:
            if row["drafter"] not in get_args(DrafterName):
                raise ValueError(f"drafter={row['drafter']!r}: expected {', '.join(get_args(DrafterName))}")
            names = [field.name for field in dataclasses.fields(SearchConfig)]
            fields: dict[str, Any] = {name: row[name] for name in names if name in row} | {
                "widths": tuple(row["widths"])
            }
            if row["drafter"] == "none":
                fields["gamma"] = 1  # a row says 0: nothing is drafted
            return cls(row["drafter"], SearchConfig(**fields), row.get("constraint", "trie"))
        except (KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"no setting of a decoder: {error!r}") from error

    @property
    def method(self) -> Method:
        """Whether the setting speculates: it does with any drafter but "none"."""
        return "beam_search" if self.drafter == "none" else "speculative"

    @property
    def label(self) -> str:
        """The setting as a word that names files; settings that differ have different
        labels.
        """
        search = self.search
        widths, gamma = ("none", 0) if self.drafter == "none" else ("-".join(map(str, search.widths)), search.gamma)
        label = f"{self.method}_{self.drafter}_K{search.beams}_w{widths or 'none'}_g{gamma}_{search.score_norm}"
        if search.budget is not None:
            label += f"_b{search.budget}"
        if selection_of(search.mode).draws:
            label += f"_{search.mode}_T{search.temperature:g}"
        if search.tolerance:
            label += f"_tolerance{search.tolerance:g}"
        if search.row_share != SearchConfig.row_share:
            label += f"_rows{search.row_share}"
        return label + ("_levels" if self.constraint == "levels" else "")

    @property
    def row(self) -> dict[str, Any]:
        """The fields in one flat dict, as tables and stored files hold them."""
        search = dataclasses.asdict(self.search)
        if self.drafter == "none":
            search["gamma"] = 0
        return {"method": self.method, "drafter": self.drafter} | search | {"constraint": self.constraint}

    @property
    def baseline(self) -> Setting:
        """What the target does alone, call by call: plain beam search, or the target's
        own sampler.
        """
        search = self.search
        mode = selection_of(search.mode).baseline
        alone = Setting.beam_search(search.beams, search.score_norm).searching(
            mode=mode, temperature=search.temperature
        )
        return dataclasses.replace(alone, constraint=self.constraint)

    def searching(self, **changes: Any) -> Setting:
        """The setting with other fields of `search`."""
        return dataclasses.replace(self, search=dataclasses.replace(self.search, **changes))


def parse_widths(text: str) -> Widths:
    """Reads widths: "all,64,96" -> ("all", 64, 96).

    Raises:
      DecodeError: any other text.
    """
    try:
        return tuple("all" if part == "all" else int(part) for part in text.split(","))
    except ValueError:
        raise DecodeError(f"widths {text!r}: expected ints or 'all' with commas between, such as all,64,96") from None
