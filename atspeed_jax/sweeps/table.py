"""The tables of a sweep: mean and deviation over seeds, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from atspeed_jax.evaluation import metrics
from atspeed_jax.reporting.tables import ABSENT, Table, widths_label


class Way(NamedTuple):
    """What tells one way to decode from another; a field of a row each."""

    K: int
    mode: str
    tolerance: float
    temperature: float
    constraint: str
    score_norm: str
    widths: tuple[int | str, ...]
    budget: int | None
    users: int

    @property
    def mode_label(self) -> str:
        """The mode, and what it gives up or how it draws, if anything."""
        tolerance = f", tolerance {self.tolerance:g}" if self.tolerance else ""
        return self.mode + tolerance + (f", temperature {self.temperature:g}" if self.temperature != 1.0 else "")


MEASURED = (*Way._fields, "target_calls_mean", "coverage_by_level", "calls_by_user", "overlap_with_exact")
ROW_FIELDS = ("run", "objective", "seed", "target_fingerprint", *MEASURED, "recall@K", "ndcg@K")  # of sweep.json


def sweep_row(run: str, objective: str, seed: int, target_fingerprint: str, row: Mapping) -> dict:
    """Returns a row of sweep.json.

    Args:
      run: name of the run.
      objective: of its alignment.
      seed: of its stages.
      target_fingerprint: of its target.
      row: of `modes.ModeTable`, of speculative search. calls_by_user [users] is the
        mean over the draws.
    """
    k = row["K"]
    quality = {f"{name}@K": row["quality"][f"{name}@{k}"] for name in ("recall", "ndcg")}
    found = {"run": run, "objective": objective, "seed": seed, "target_fingerprint": target_fingerprint}
    return found | {name: row[name] for name in MEASURED} | quality


def by_way(rows: Sequence[Mapping]) -> dict[Way, list[Mapping]]:
    """Groups rows by how they decode, in the order of the rows."""
    ways: dict[Way, list[Mapping]] = {}
    for row in rows:
        way = Way._make(tuple(row[name]) if name == "widths" else row[name] for name in Way._fields)
        ways.setdefault(way, []).append(row)
    return ways


def sweep_table(rows: Sequence[Mapping]) -> Table:
    """Returns the mean over seeds of every run's figures, fewest target calls first.

    Figures of several seeds have their standard deviation.
    """
    header = ["run", "objective", "mode", "constraint", "norm", "K", "widths", "users", "seeds"]
    header += ["target calls", "coverage by level", "Recall@K", "NDCG@K"]
    cells = []
    for way, alike in by_way(rows).items():
        runs: dict[str, list[Mapping]] = {}
        for row in alike:
            runs.setdefault(row["run"], []).append(row)
        for run, of_run in sorted(runs.items(), key=lambda item: np.mean([r["target_calls_mean"] for r in item[1]])):
            shares = zip(*(row["coverage_by_level"] for row in of_run), strict=True)
            means = [np.mean([share for share in level if share is not None] or [np.nan]) for level in shares]
            cells.append([
                run, of_run[0]["objective"], way.mode_label, way.constraint, way.score_norm, str(way.K),
                widths_label(way.widths, way.budget), str(way.users), str(len(of_run)),
                _spread([row["target_calls_mean"] for row in of_run], 3),
                " / ".join(f"{mean:.2f}" for mean in means),
                *(_spread([row[name] for row in of_run], 4) for name in ("recall@K", "ndcg@K")),
            ])  # fmt: skip
    return Table("Runs side by side, mean ± deviation over seeds", header, cells)


def pairs_table(rows: Sequence[Mapping], reference: str, *, samples: int, seed: int) -> Table:
    """Returns the target calls of every run minus those of another run, paired by user.

    Args:
      rows: of sweep.json.
      reference: name of the other run. Seeds that both runs have are compared.
      samples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Cells "mean [low, high]", the 95 % interval over users
      (`metrics.paired_difference`).
    """
    seeds = sorted({row["seed"] for row in rows})
    header = ["run", "mode", "constraint", "norm", "K", "widths", *(f"seed {number}" for number in seeds)]
    cells = []
    for way, alike in by_way(rows).items():
        calls = {(row["run"], row["seed"]): np.array(row["calls_by_user"]) for row in alike}
        for run in dict.fromkeys(row["run"] for row in alike if row["run"] != reference):
            differences = []
            for number in seeds:
                of_run, of_reference = calls.get((run, number)), calls.get((reference, number))
                if of_run is None or of_reference is None:
                    differences.append(ABSENT)
                    continue
                found = metrics.paired_difference(of_run, of_reference, samples=samples, seed=seed)
                differences.append(f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
            tree = widths_label(way.widths, way.budget)
            cells.append([run, way.mode_label, way.constraint, way.score_norm, str(way.K), tree, *differences])
    return Table(f"Target calls minus those of {reference}, paired by user [95 % interval]", header, cells)


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
