"""tuned.json of a run: what was chosen per K and batch size, and for what it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atspeed_jax.decoding.base import DecodeError, ScoreNorm
from atspeed_jax.serving.settings import Setting
from atspeed_jax.tuning.tune import TuneError
from atspeed_jax.utils.files import jsonable, read_json

TUNED_FILE = "tuned.json"
AGAIN = "tune again in the checkout with python -m launch.tune_decoder"


@dataclasses.dataclass(frozen=True)
class TunedFor:
    """What a choice holds for.

    Attributes:
      device: kind of the devices.
      device_count, cpu_count: how many there are.
      score_norm: of the search.
      id_length: codes of an id.
      target, draft: fingerprints of the trained models; None for a model that is not
        trained.
    """

    device: str
    device_count: int
    cpu_count: int | None
    score_norm: ScoreNorm
    id_length: int
    target: str | None
    draft: str | None


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The content of a tuned.json.

    Attributes:
      path: of the file.
      made_for: the fields of a `TunedFor`, as far as the file has them.
      rows: see `tune.Tuned`.
    """

    path: Path
    made_for: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, directory: Path) -> Tuning | None:
        """Reads the file of a run; None if it has none.

        Raises:
          ValueError: the file is damaged. A row of an older form, which does not say
            for which target it was made, is not looked at: it is never used.
        """
        path = Path(directory) / TUNED_FILE
        if not path.is_file():
            return None
        table = read_json(path, "delete it and tune again", {"score_norm": str, "rows": list})
        environment = table.get("environment", {})
        if not isinstance(environment, dict):
            raise TuneError(f"{path} is damaged: environment={environment!r}; delete it and tune again")
        known = {**environment, **table}
        made_for = {field.name: known[field.name] for field in dataclasses.fields(TunedFor) if field.name in known}
        for number, row in enumerate(table["rows"] if "target" in made_for else ()):
            if why := _fault(row, made_for.get("id_length")):
                raise TuneError(f"{path} is damaged: row {number} {why}; delete it and tune again")
        return cls(path, made_for, table["rows"])

    def unfit(self, wanted: TunedFor) -> str | None:
        """Says why the choices do not hold for something else; None if they do."""
        differ = [
            f"{name}={self.made_for.get(name, 'unknown')!r}, not {value!r}"
            for name, value in dataclasses.asdict(wanted).items()
            if self.made_for.get(name, "unknown") != value
        ]
        return f"{self.path} was made for {'; '.join(differ)}" if differ else None

    @property
    def beams(self) -> list[int]:
        """Each K that was tuned."""
        return sorted({row["K"] for row in self.rows})

    def row(self, beams: int, batch: int, say: Callable[[str], None] = lambda text: None) -> Mapping[str, Any]:
        """The row of one K at the nearest batch size.

        Args:
          beams: K.
          batch: users decoded at once.
          say: gets a line if that batch size was not tuned.

        Raises:
          TuneError: nothing was tuned for K.
        """
        rows = [row for row in self.rows if row["K"] == beams]
        if not rows:
            raise TuneError(f"{self.path} has no K={beams}, only {self.beams}; {AGAIN} --beams={beams}")
        found = min(rows, key=lambda row: (abs(row["batch"] - batch), row["batch"]))
        if found["batch"] != batch:
            say(f"tuned for batches of {found['batch']}, the nearest to {batch} in {self.path}")
        return found

    def setting(self, beams: int, batch: int, say: Callable[[str], None] = lambda text: None) -> Setting:
        """The choice for one K; see `row`.

        Raises:
          TuneError: nothing was tuned for K.
        """
        return Setting.from_row(_chosen(self.row(beams, batch, say)))


def _chosen(row: Mapping[str, Any]) -> Any:
    """The setting that a row chose, as the file holds it."""
    return next(entry["setting"] for entry in row["settings"] if entry["label"] == row["choice"])


def _fault(row: Any, id_length: Any) -> str | None:
    """Says what is wrong with a row; None if it is one that `tune.choose` gives for ids
    of `id_length` codes.

    A setting is read back and compared with what the file holds, so that no field of
    the file is passed over.
    """
    fields = {"K": int, "batch": int, "choice": str, "settings": list}
    if not isinstance(row, Mapping):
        return f"is {row!r}, not an object with {', '.join(fields)}"
    for name, kind in fields.items():
        if type(row.get(name)) is not kind:
            return f"has {name}={row.get(name)!r}, expected {kind.__name__}"
    labels = [entry.get("label") for entry in row["settings"] if isinstance(entry, Mapping)]
    if row["choice"] not in labels:
        return f"chose {row['choice']!r}, which is none of its settings"
    try:
        stored = _chosen(row)
        setting = Setting.from_row(stored)
    except (DecodeError, KeyError) as error:
        return f"holds for {row['choice']!r} {error}"
    if jsonable(setting.row) != stored or setting.label != row["choice"]:
        return f"holds for {row['choice']!r} another setting, {setting.label!r}"
    if setting.search.beams != row["K"]:
        return f"of K={row['K']} holds a setting of K={setting.search.beams}"
    widths = setting.search.widths
    if setting.method == "speculative" and len(widths) + 1 != id_length:
        return f"holds {len(widths)} widths for {row['choice']!r}, and was made for id_length={id_length!r}"
    if setting.search.mode != "strict" or setting.search.tolerance or setting.constraint != "trie":
        return f"holds {setting.label!r}, expected strict mode, no tolerance and constraint='trie'"
    return None


def tuned_setting(
    directory: Path, beams: int, batch: int, wanted: TunedFor, say: Callable[[str], None] = lambda text: None
) -> Setting:
    """Reads the choice for one K from the tuned.json of a run.

    Args:
      directory: of the run.
      beams: K.
      batch: batch size; the choice of the nearest measured one counts.
      wanted: what the choice must hold for.
      say: see `Tuning.row`.

    Raises:
      TuneError: no such file, K, device, norm or pair (the message says what the file
        has), or a setting that cannot be read.
    """
    tuning = Tuning.read(directory)
    if tuning is None:
        path = Path(directory) / TUNED_FILE
        raise TuneError(f"there is no {path}; make it in the checkout with python -m launch.tune_decoder")
    if why := tuning.unfit(wanted):
        raise TuneError(f"{why}; {AGAIN}")
    return tuning.setting(beams, batch, say)
