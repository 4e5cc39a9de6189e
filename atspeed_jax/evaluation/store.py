"""Measurements that are kept as files: what one evaluation has measured, the next one
reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from atspeed_jax.utils import files


@dataclasses.dataclass(frozen=True)
class MeasurementStore:
    """A directory with one JSON file per finished measurement.

    Attributes:
      directory: of the files; all of them are of the same models and settings.
      say: gets a line before each measurement and each decode.
    """

    directory: Path
    say: Callable[[str], None]

    def remembered(self, name: str, measure: Callable[[], dict], fields: Mapping[str, type]) -> dict:
        """The measurement `name`: read from its file, or measured and written where it
        has none.

        Args:
          name: of the file, without ".json".
          measure: makes the measurement.
          fields: keys that the measurement must have, and their types.

        Raises:
          ValueError: a damaged file, which is named.
        """
        return files.remembered(self.directory / f"{name}.json", measure, self.say, fields)
