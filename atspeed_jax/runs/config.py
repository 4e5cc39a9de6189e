"""From nested fields, as JSON or a config file holds them, to frozen dataclasses."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar, Union

from atspeed_jax.utils.ranges import RangeError

T = TypeVar("T")


class NoValue:
    """The value of a field that its config file requires the user to set."""


NO_VALUE = NoValue()


class ConfigError(ValueError):
    """A config with an unknown, missing or unusable field."""


def load(config: Mapping, into: type[T]) -> T:
    """Converts nested fields into a dataclass by its type hints.

    Type hints may be bool, int, float, str, None, Literal, unions, tuple[X, ...],
    tuple[X, Y] (from lists or tuples) and further dataclasses (from nested dicts). An
    int is taken where a float is expected. A bool is never taken as a number.

    Args:
      config: field name -> value. A field that is missing takes the dataclass's
        default, if it has one.
      into: the dataclass.

    Raises:
      ConfigError: a field is unknown (the message suggests the nearest valid name),
        missing, of the wrong type, or refused by the dataclass with a ValueError. The
        message names the field's full path.
      TypeError: a type hint is none of the above.
    """
    return _dataclass(config, into, "config")


def _dataclass(value, kind: type, path: str):
    if not isinstance(value, Mapping):
        names = ", ".join(field.name for field in fields_of(kind))
        raise ConfigError(f"{path} is {value!r}, expected the fields of {kind.__name__}: {names}")
    fields = {field.name: field for field in fields_of(kind)}
    for name in value:
        if name not in fields:
            raise ConfigError(f"{path}.{name} is unknown; {nearest(str(name), fields, _paths(kind, path), path)}")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(value[name], hints[name], f"{path}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path}.{name} is missing; expected {_expected(hints[name])}")
    try:
        return kind(**arguments)
    except RangeError as error:
        raise ConfigError(f"{path}.{error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def fields_of(kind: type) -> list[dataclasses.Field]:
    """The fields that the constructor of a dataclass takes."""
    return [field for field in dataclasses.fields(kind) if field.init]


def nearest(name: str, here: Iterable[str], everywhere: Iterable[str], path: str) -> str:
    """Suggests the field that was most likely meant.

    Args:
      name: the unknown field.
      here: the fields of the section in which `name` stands.
      everywhere: full paths of all fields below that section.
      path: the section.

    Returns:
      a sentence. It names a similar field of the section, else a field of this very
      name elsewhere, else the least different field of the section.
    """
    here = list(here)
    if close := difflib.get_close_matches(name, here, n=1, cutoff=0.6):
        return f"did you mean {path}.{close[0]}?"
    below = [inner for inner in everywhere if inner.rpartition(".")[2] == name]
    if below:
        return f"did you mean {below[0]}?"
    closest = difflib.get_close_matches(name, here, n=1, cutoff=0.0)
    return f"the nearest field is {path}.{closest[0]}, of {', '.join(here)}" if closest else "it has no fields"


def _paths(kind: type, path: str):
    for name, hint in typing.get_type_hints(kind).items():
        yield f"{path}.{name}"
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                yield from _paths(inner, f"{path}.{name}")


def _convert(value, hint, path: str):
    """Converts a value to the type of a hint; ConfigError names `path`."""
    if value is NO_VALUE:
        raise ConfigError(f"{path} has no value; expected {_expected(hint)}, set it with --{path}=...")
    origin = typing.get_origin(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass(value, hint, path)
    if origin in (Union, types.UnionType):
        return _union(value, hint, path)
    if origin is tuple and isinstance(value, list | tuple):
        return _tuple(value, hint, path)
    if origin is Literal:
        if any(value == allowed and type(value) is type(allowed) for allowed in typing.get_args(hint)):
            return value
    elif hint is float and type(value) is int:
        return float(value)
    elif hint in (bool, int, float, str, types.NoneType):
        if type(value) is hint:
            return value
    elif origin is not tuple:
        raise TypeError(f"{path}: type {hint} of the dataclass is not understood; use the types that load() lists")
    raise ConfigError(f"{path} is {value!r} ({type(value).__name__}), expected {_expected(hint)}")


def _tuple(value, hint, path: str) -> tuple:
    kinds = typing.get_args(hint)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ConfigError(f"{path} is {value!r} with {len(value)} entries, expected {_expected(hint)}")
    return tuple(
        _convert(entry, kind, f"{path}[{place}]") for place, (entry, kind) in enumerate(zip(value, kinds, strict=True))
    )


def _union(value, hint, path: str):
    """Converts a value to the first member of a union that takes it.

    If none does, the error is that of the dataclass with the most of its field names.
    """
    members = typing.get_args(hint)
    errors = {}
    # An exact match before int -> float, so that int | float keeps an int.
    for member in sorted(members, key=lambda member: type(value) is not member):
        try:
            return _convert(value, member, path)
        except ConfigError as error:
            errors[member] = error
    inner = [member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)]
    if isinstance(value, Mapping) and inner:
        raise errors[max(inner, key=lambda kind: len(set(value) & {field.name for field in fields_of(kind)}))]
    raise ConfigError(f"{path} is {value!r} ({type(value).__name__}), expected {_expected(hint)}")


def _expected(hint) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(argument) for argument in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"a tuple of {_expected(arguments[0])}"
    if origin is tuple:
        return "a tuple of (" + ", ".join(map(_expected, arguments)) + ")"
    return "None" if hint is types.NoneType else getattr(hint, "__name__", str(hint))
