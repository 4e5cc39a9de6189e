"""The config file and its overrides, read before absl reads the command line.

ml_collections ends in a traceback where a config file does not run, and where an
override names a field that the file does not have.
"""

import re
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from atspeed_jax.runs.config import ConfigError, nearest
from atspeed_jax.runs.record import is_run, recorded

RECORD = Path(__file__).with_name("recorded.py")
_OVERRIDE = re.compile(r"--?(?:no)?(config\.[^=]+)(?:=.*)?", re.DOTALL)


def with_record(arguments: Sequence[str]) -> list[str]:
    """Returns the command line, with the record of a run as --config where it is meant.

    That is where the command line changes fields of a run's config and names no config
    file.

    Args:
      arguments: the program's name and its arguments.

    Raises:
      WorkdirError: for a record that cannot be read.
    """
    workdir = given(arguments, "workdir") or given(arguments, "checkpoint")
    if given(arguments, "config") is not None or not _overrides(arguments) or not workdir or not is_run(Path(workdir)):
        return list(arguments)
    recorded(Path(workdir))  # raises with a better message than the config file would
    return [arguments[0], f"--config={RECORD}:{workdir}", *arguments[1:]]


def check_overrides(arguments: Sequence[str]) -> None:
    """Checks the config file, and that it has every field x.y of a --config.x.y.

    Raises:
      ConfigError: for a file that does not run, or a field that it does not have.
    """
    file, overrides = given(arguments, "config"), _overrides(arguments)
    if file is None and overrides:
        raise ConfigError(
            f"--{overrides[0]} changes a config: give --config=FILE before it, or the --workdir of a run that has one"
        )
    if file is None:
        return
    fields = run_config(file)
    fields = fields.to_dict(preserve_field_references=True) if isinstance(fields, ConfigDict) else fields
    for override in overrides:
        _check_field(fields, override, file.replace(f"{RECORD}:", "the record of "))


def run_config(file: str) -> ConfigDict | Mapping:
    """Returns what get_config() of a config file returns.

    Args:
      file: path of the file. FILE:TEXT calls get_config(TEXT), as with --config.

    Raises:
      ConfigError: naming the file, the line and the error, if the file does not run.
    """
    path, colon, text = file.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"there is no config file {path}; give one, such as --config=configs/tiny.py")
    try:
        fields = runpy.run_path(path)["get_config"](*([text] if colon else []))
    except KeyError as error:
        if error.args != ("get_config",):
            raise ConfigError(_where_and_why(path, error)) from error
        raise ConfigError(f"config file {path} has no function get_config(); see configs/tiny.py") from error
    except Exception as error:  # whatever the file does
        raise ConfigError(_where_and_why(path, error)) from error
    if not isinstance(fields, ConfigDict | Mapping):
        raise ConfigError(f"get_config() of {path} returns {fields!r}, expected a ConfigDict of its fields")
    return fields


def _where_and_why(path: str, error: Exception) -> str:
    """Says where and why a config file does not run."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    where = path if line is None else f"{path}, line {line}"
    why = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"config file {where}: {type(error).__name__}: {why}"


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Returns the names of fields that are set, such as "config.decode.gamma"."""
    return [override[1] for argument in arguments if (override := _OVERRIDE.fullmatch(argument))]


def given(arguments: Sequence[str], flag: str) -> str | None:
    """Returns the value of a flag, None without it."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


def _check_field(fields: Mapping, path: str, file: str) -> None:
    if "[" in path:
        whole = path.partition("[")[0]
        raise ConfigError(f"{path}: entries are not set one by one; set all of them, --{whole}='(...)'")
    place, at = fields, "config"
    for name in path.split(".")[1:]:
        if not isinstance(place, Mapping):
            raise ConfigError(f"{path}: {at} is {place!r} in {file}, which has no fields; set them in the file")
        if name not in place:
            raise ConfigError(
                f"{path} is unknown; {file} has no such field: {nearest(name, place, _paths(fields), at)}"
            )
        place, at = place[name], f"{at}.{name}"


def _paths(fields: Mapping, at: str = "config") -> Iterator[str]:
    for name, value in fields.items():
        yield f"{at}.{name}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{at}.{name}")
