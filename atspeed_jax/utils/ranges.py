"""Ranges of numeric config fields, written beside the field's type.

    batch_size: Annotated[int, Range(1, 65_536)]

A dataclass calls `check_ranges` in `__post_init__`, so every instance is checked.
Several configs share the aliases below. An upper bound is far above any use and low
enough to prevent overflows and impossible allocations.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import types
import typing
from typing import Annotated, Any, Literal, Union


class RangeError(ValueError):
    """A number outside its range; the message begins with the name of its field."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds; NaN is in no range.

    Attributes:
      low: lower bound.
      high: upper bound.
      ends: which bounds are in the range: "[]" both, "(]" high, "[)" low, "()" none.
      why: for the message: what is wrong outside the range, or what to do.
    """

    low: float
    high: float
    ends: Literal["[]", "(]", "[)", "()"] = "[]"
    why: str = ""

    def holds(self, value) -> bool:
        """Tells whether a number is in the range."""
        above = self.low <= value if self.ends[0] == "[" else self.low < value
        return above and (value <= self.high if self.ends[1] == "]" else value < self.high)

    def __str__(self) -> str:
        low = "at least" if self.ends[0] == "[" else "more than"
        high = "at most" if self.ends[1] == "]" else "less than"
        why = f"; {self.why}" if self.why else ""
        return f"{low} {_short(self.low)} and {high} {_short(self.high)}{why}"


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def shown(value, most: int = 120) -> str:
    """Writes a value for a message: its repr, cut after `most` characters.

    A long text is cut before repr, so its quotes match. Three dots mark a cut.
    """
    if isinstance(value, str | bytes):
        return repr(value[:most]) + "..." * (len(value) > most)
    text = repr(value)
    return text[:most] + "..." * (len(text) > most)


# Shared by several configs.
Share = Annotated[float, Range(0, 1)]
PartialShare = Annotated[float, Range(0, 1, "[)")]
Seed = Annotated[int, Range(0, 2**31 - 1)]
BatchSize = Annotated[int, Range(1, 65_536)]
Items = Annotated[int, Range(1, 10_000)]  # of a history, a prompt or a row
Users = Annotated[int, Range(1, 1_000_000_000)]  # more than the data has means all
Updates = Annotated[int, Range(1, 2**31 - 1)]  # optax counts them in int32
Beams = Annotated[int, Range(1, 10_000)]
Width = Annotated[int, Range(1, 10_000_000)]  # of a level; a level never has more nodes than prefixes
Nodes = Annotated[int, Range(1, 10_000_000)]  # of a budget
Temperature = Annotated[float, Range(1e-3, 1e3)]
Repeats = Annotated[int, Range(1, 10_000)]
PromptTokens = Annotated[int, Range(1, 100_000)]
Samples = Annotated[int, Range(1, 1_000_000)]  # of a bootstrap
VocabSize = Annotated[int, Range(1, 2**31 - 1)]
HiddenSize = Annotated[int, Range(1, 65_536)]
IntermediateSize = Annotated[int, Range(1, 1_048_576)]
Layers = Annotated[int, Range(1, 1_000)]
Heads = Annotated[int, Range(1, 1_024)]
HeadDim = Annotated[int, Range(1, 1_024)]
RopeTheta = Annotated[float, Range(1, 1e10)]
NormEps = Annotated[float, Range(0, 1, "(]")]
LearningRate = Annotated[float, Range(0, 100, "(]")]
Warmup = Annotated[int, Range(0, 2**31 - 1)]  # updates
WeightDecay = Annotated[float, Range(0, 100)]
ClipNorm = Annotated[float, Range(0, 1e9, "(]", "1e9 never clips")]
Patience = Annotated[int, Range(0, 1_000_000)]


def check_ranges(config: Any) -> None:
    """Checks every field of a dataclass instance against the range in its type hint.

    A hint may be a number with a Range (`Annotated`), a tuple of them, or a union with
    None, Literal or tuples. Nested dataclasses check themselves.

    Raises:
      RangeError: names the first field that lies outside its range.
    """
    for name, hint in _hints(type(config)).items():
        _check(getattr(config, name), hint, name)


def check_increasing(config: Any, name: str) -> None:
    """Checks that a field holds one or more increasing numbers.

    Raises:
      RangeError: names the field.
    """
    value = getattr(config, name)
    if not value or list(value) != sorted(set(value)):
        raise RangeError(f"{name}={shown(value)}: expected one or more increasing numbers, such as (5, 10, 20)")


def check_each_once(config: Any, *names: str, least: Literal[0, 1] = 1) -> None:
    """Checks that fields, which are tuples, hold at least `least` entries, each once.

    Raises:
      RangeError: names the first field that does not.
    """
    for name in names:
        value = getattr(config, name)
        if len(value) < least or len(set(value)) < len(value):
            many = "one" if least else "none"
            raise RangeError(f"{name}={shown(value)}: expected {many} or more entries, each once")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check(value, hint, path: str) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        _check_number(value, arguments[0], arguments[1], path)
    elif origin in (Union, types.UnionType):
        if not any(_is_plain(value, member) for member in arguments):
            for member in arguments:
                _check(value, member, path)
    elif origin is tuple and isinstance(value, tuple):
        kinds = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        for place, (entry, kind) in enumerate(zip(value, kinds, strict=False)):
            _check(entry, kind, f"{path}[{place}]")


def _check_number(value, kind: type, allowed: Range, path: str) -> None:
    fits = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    if not (fits and allowed.holds(value)):
        number = "whole number" if kind is int else "number"
        raise RangeError(f"{path}={shown(value)}: expected a {number}, {allowed}")


def _is_plain(value, member) -> bool:
    """Tells whether a value is a member of a union that is None or Literal[...]."""
    if typing.get_origin(member) is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in typing.get_args(member))
    return member is types.NoneType and value is None
