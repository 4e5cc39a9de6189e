"""Between the command line's ConfigDict and the frozen dataclasses of the library."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import RequiredValueError

from atspeed_jax.runs import config as fields
from atspeed_jax.runs.config import NO_VALUE

T = TypeVar("T")


def load(config: ConfigDict | Mapping, into: type[T]) -> T:
    """Returns the config as an instance of a dataclass, see `runs.config.load`."""
    return fields.load(plain(config), into)


def plain(value) -> typing.Any:
    """Returns a value as nested dicts, lists and tuples, without ml_collections.

    A field that its config file leaves to be set becomes NO_VALUE.
    """
    if isinstance(value, FieldReference):
        try:
            value = value.get()
        except RequiredValueError:
            return NO_VALUE
    if isinstance(value, ConfigDict):
        value = dict(value.items(preserve_field_references=True))
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value


def to_fields(config) -> ConfigDict:
    """Returns the ConfigDict that `load` would turn into this dataclass.

    The command line can change its fields.
    """
    hints = typing.get_type_hints(type(config))
    return ConfigDict(
        {field.name: _field(getattr(config, field.name), hints[field.name]) for field in fields.fields_of(type(config))}
    )


def _field(value, hint):
    if dataclasses.is_dataclass(value):
        return to_fields(value)
    # A field that may be None changes its type.
    optional = types.NoneType in typing.get_args(hint)
    return FieldReference(value, field_type=object) if optional else value
