"""What is read of a log, what is kept of it, and how it is split."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

How = Literal["time", "leave_one_out", "rolling"]
Repeats = Literal["all", "first", "last"]
Format = Literal["auto", "table", "amazon2014", "amazon2018", "amazon2023", "movielens"]


class IngestError(ValueError):
    """A log or an item file that cannot be used; the message names file and row."""


@dataclass(frozen=True)
class Files:
    """How files are read.

    Attributes:
      format: of a published log, "table" for none of them, "auto" to go by the first
        line.
      encoding: of CSV files; None for UTF-8, or that of the format.
      delimiter: of CSV files; None for that of the first line.
      time_format: of the dates of a log, as strptime of DuckDB reads it, such as
        %d.%m.%Y; None for numbers and ISO dates.
    """

    format: Format = "auto"
    encoding: str | None = None
    delimiter: str | None = None
    time_format: str | None = None


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a log and of an item file; None to go by usual names.

    Attributes:
      user, item, time: of an interaction.
      rating: of an interaction; a log may have none.
      item_name: of the item, in the item file.
      title, text, category, brand, price, vector: of the item file, which may lack each.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    item_name: str | None = None
    title: str | None = None
    text: str | None = None
    category: str | None = None
    brand: str | None = None
    price: str | None = None
    vector: str | None = None


@dataclass(frozen=True)
class Filters:
    """What is kept of a log, in the order of the attributes.

    Attributes:
      min_rating: least rating; None keeps all.
      since, until: first moment that is kept, and first one that is not, in
        milliseconds since 1970, UTC; None for no limit.
      need_text: drop items whose title and text are blank.
      repeats: what is kept of several events of one user with one item at several
        moments. Events that are equal in user, item and time are always one.
      user_core, item_core: least events of each user and of each item that is kept.
        The filter is repeated until nothing changes.
      min_train: least training events of each user that is kept. It is applied behind
        the split, whose moments it does not move.

    Raises:
      IngestError: a core below 0, or an empty time window.
    """

    min_rating: float | None = None
    since: int | None = None
    until: int | None = None
    need_text: bool = False
    repeats: Repeats = "all"
    user_core: int = 0
    item_core: int = 0
    min_train: int = 0

    def __post_init__(self):
        for name in ("user_core", "item_core", "min_train"):
            if getattr(self, name) < 0:
                raise IngestError(f"{name} is {getattr(self, name)}; expected 0 or more events.")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise IngestError(f"min_rating is {self.min_rating}; expected a number such as 4.")
        if self.repeats not in get_args(Repeats):
            raise IngestError(f"repeats is {self.repeats!r}; expected one of {', '.join(get_args(Repeats))}.")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise IngestError(f"since ({self.since}) must be before until ({self.until}).")


@dataclass(frozen=True)
class Split:
    """How events are split into train, valid and test.

    Attributes:
      how: "time": two moments, the same for all users, part the events (AtSpeed,
        section 4.1). "leave_one_out": the last event of each user is the test, the one
        before it valid. "rolling": as "time", and each held-out event is asked by
        itself, with all events before it as history.
      valid_share, test_share: about these shares of the events lie in valid and in
        test, for "time" and "rolling".

    Raises:
      IngestError: shares that are not positive, or leave nothing for train.
    """

    how: How = "time"
    valid_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self):
        if self.how not in get_args(How):
            raise IngestError(f"split is {self.how!r}; expected one of {', '.join(get_args(How))}.")
        if not (self.valid_share > 0 and self.test_share > 0 and self.valid_share + self.test_share < 1):
            raise IngestError(
                f"valid_share {self.valid_share} and test_share {self.test_share}: both must be above 0, and their sum "
                "below 1."
            )

    @property
    def rows(self) -> bool:
        """Whether each held-out event is asked by itself."""
        return self.how == "rolling"


@dataclass(frozen=True)
class Limits:
    """Resources of the engine.

    Attributes:
      memory_gb: of DuckDB; more is written to files beside the output.
      threads: None for all processors.
    """

    memory_gb: float = 4.0
    threads: int | None = None


@dataclass(frozen=True)
class IngestSettings:
    """All settings of launch.ingest but the files."""

    columns: Columns = field(default_factory=Columns)
    filters: Filters = field(default_factory=Filters)
    split: Split = field(default_factory=Split)
    limits: Limits = field(default_factory=Limits)
    files: Files = field(default_factory=Files)
