"""The command line of a main: its help, and the arguments that it refuses.

absl's flags are global. absl would suggest the flags of every imported library, and
leave out of `--help` the flags that another module defines. A main has the flags of
launch/ alone.
"""

import difflib
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, get_args, get_origin

from absl import flags

from atspeed_jax.runs.config import ConfigError
from atspeed_jax.runs.record import WorkdirError
from launch.overrides import check_overrides, given, with_record

HELP = ("help", "h", "?", "helpshort")
SHARED = "launch.stage"  # whose flags every main has
WIDTH, COLUMN = 110, 28  # characters of a line of help, and before what a flag is for
URL = re.compile(r"[A-Za-z](://|[A-Za-z0-9+.-]+:/)")  # with one slash too, as Path writes it; C:/x is no URL
METAVARS = {"int": "N", "float": "X"}
# Notes that absl adds to a help text; `_usage` shows them in another way.
ABSL_NOTES = re.compile(r"^<[^>]*>: |;\s+repeat this option to specify a list of values$")
VERBOSITY = "1: show the traceback of an error; 0: show the log of orbax."

flags.disclaim_key_flags()  # a flag that define_numbers makes is one of the module that calls it


class CommandLineError(ValueError):
    """Arguments that a main does not take."""


class _NumbersParser(flags.ListParser):
    """Parses every part of a list as a number.

    Raises ValueError for anything else; absl adds the flag's name.
    """

    def __init__(self, kind, may_be_empty: bool):
        super().__init__()
        self.may_be_empty = may_be_empty
        self._or_none = get_origin(kind) is not Annotated
        self._type, self._range = get_args(get_args(kind)[0] if self._or_none else kind)

    def parse(self, argument):
        try:
            return [self._number(part) for part in super().parse(argument)]
        except ValueError:
            numbers = ("whole numbers" if self._type is int else "numbers") + (" or none" if self._or_none else "")
            raise ValueError(f"expected {numbers}, each {self._range}, with commas between") from None

    def _number(self, text: str):
        if self._or_none and text == "none":
            return None
        if not self._range.holds(number := self._type(text)):
            raise ValueError
        return number


def define_numbers(
    name: str, default: str, kind, help: str, *, may_be_empty: bool = False, flag_values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder:
    """Defines a flag that is a list of numbers, such as --beams=20,5.

    Args:
      name: of the flag.
      default: its value in text.
      kind: a number with its range, as `atspeed_jax.utils.ranges` has them, or such a
        number or None.
      help: what the flag is for.
      may_be_empty: whether --beams= is taken.
      flag_values: where the flag is defined.
    """
    list_parser = _NumbersParser(kind, may_be_empty)
    serializer = flags.ListSerializer(",")
    return flags.DEFINE(list_parser, name, default, help, flag_values=flag_values, serializer=serializer)


class _ChoiceParser(flags.EnumParser):
    """One of several names; ValueError with the new name for one that was renamed."""

    def __init__(self, names: Sequence[str], renamed: Mapping[str, str]):
        super().__init__(names)
        self._renamed = renamed

    def parse(self, argument):
        if argument in self._renamed:
            raise ValueError(f"its name is {self._renamed[argument]} now")
        return super().parse(argument)


def define_choice(
    name: str,
    names: Sequence[str],
    help: str,
    *,
    renamed: Mapping[str, str],
    flag_values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder:
    """Defines a flag without default that is one of several names.

    Args:
      name: of the flag.
      names: its values.
      help: what the flag is for.
      renamed: former name of a value -> its name. The former name is refused.
      flag_values: where the flag is defined.
    """
    choice, serializer = _ChoiceParser(names, renamed), flags.ArgumentSerializer()
    return flags.DEFINE(choice, name, None, help, flag_values=flag_values, serializer=serializer)


def parser(required: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """Returns the function that app.run parses the command line with.

    The function prints the help and ends the program with 0 if help is asked for. It
    ends the program with one line for arguments that it refuses.

    Args:
      required: flags that must be given.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        if _asks_for_help(argv[1:]):
            print(help_text(required))
            raise SystemExit(0)
        try:
            arguments = with_record(flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False))
            check_local("config", given(arguments, "config"))
            check_overrides(arguments)
            sys.argv = arguments  # where ml_collections looks for the names of overrides
            check(flags.FLAGS(arguments)[1:], required)
        except (flags.Error, CommandLineError, ConfigError, WorkdirError) as error:
            raise SystemExit(f"error: {' '.join(_message(error).split())}") from None
        return [argv[0]]

    return parse


def check(rest: Sequence[str], required: Iterable[str]) -> None:
    """Checks the parsed flags.

    Args:
      rest: arguments that are no flags.
      required: flags that must be given.

    Raises:
      CommandLineError: naming the argument, for the first mistake.
    """
    if rest:
        raise CommandLineError(f"{rest[0]!r} is no flag; expected --name=value, --help shows all flags")
    if missing := [name for name in required if not flags.FLAGS[name].present]:
        raise CommandLineError(f"give {', '.join(f'--{name}=...' for name in missing)}; --help says what they are")
    for flag in (flag for group in main_flags() for flag in group if flag.name != "config"):
        for value in flag.value if isinstance(flag.value, list) else [flag.value]:
            check_local(flag.name, value)
            if isinstance(value, float) and math.isnan(value):  # which lies outside no bound
                raise CommandLineError(f"--{flag.name}=nan: expected a number")
        check_list(flag)


def check_list(flag: flags.Flag) -> None:
    """Checks the list that a flag gave.

    Raises:
      CommandLineError: for a list that is empty, or holds an empty value or a value
        twice.
    """
    if not (flag.present and isinstance(flag.value, list)):
        return
    values = ["none" if value is None else str(value) for value in flag.value]
    given = f"--{flag.name}={','.join(values)}"
    if not values and not getattr(flag.parser, "may_be_empty", False):
        raise CommandLineError(f"{given} is empty: expected one value or more")
    if "" in values:
        raise CommandLineError(f"{given}: a value is empty; expected values that are not")
    if twice := [value for number, value in enumerate(values) if value in values[:number]]:
        raise CommandLineError(f"{given}: {twice[0]} is given twice; expected each value once")


def check_local(name: str, value) -> None:
    """Checks that the value of a flag is no URL.

    Files are read and written through the file system alone, where gs://bucket/run
    would be a new local directory "gs:".

    Raises:
      CommandLineError: for a URL.
    """
    if isinstance(value, str) and URL.match(value):
        raise CommandLineError(
            f"--{name}={value}: expected a path in this machine's file system; mount the storage (gcsfuse mounts a "
            "bucket, for one) and give the path where it is mounted"
        )


def main_flags() -> tuple[list[flags.Flag], list[flags.Flag]]:
    """Returns the flags of this main alone, and the flags that all mains share."""
    modules = flags.FLAGS.flags_by_module_dict()
    names = [name for name in modules if name != SHARED and (name.startswith("launch.") or name == sys.argv[0])]
    names.sort(key=lambda name: name != sys.argv[0])  # the flags of the main's file come first
    of_main = [flag for name in names for flag in modules[name]]
    return of_main, [*modules.get(SHARED, ()), flags.FLAGS["verbosity"]]


def _asks_for_help(arguments: Sequence[str]) -> bool:
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument in (f"-{name}", f"--{name}") for argument in before for name in HELP)


def _message(error: Exception) -> str:
    """Returns the error in words; for an unknown flag with the nearest one."""
    if not isinstance(error, flags.UnrecognizedFlagError):
        return str(error)
    known = [name for group in main_flags() for flag in group for name in (flag.name, *_negated(flag))]
    near = difflib.get_close_matches(error.flagname, [*known, "help"], n=1, cutoff=0.6)
    meant = f"did you mean --{near[0]}? " if near else ""
    return f"there is no flag --{error.flagname}; {meant}--help shows all flags"


def _negated(flag: flags.Flag) -> list[str]:
    return [f"no{flag.name}"] if flag.boolean else []


def help_text(required: Sequence[str]) -> str:
    """Returns what the main is for, and every flag that it has."""
    of_main, shared = main_flags()
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    for title, group in (("Flags of this main", of_main), ("Flags of all mains", shared)):
        if group:
            parts += [f"{title}:", "\n".join(_described(flag, flag.name in required) for flag in group)]
    parts.append(
        "Every field of the config is a flag too, such as --config.decode.gamma=2; the file of --config has all fields."
    )
    return "\n\n".join(parts)


def _described(flag: flags.Flag, required: bool) -> str:
    notes = ["required"] if required else [f"default: {_default(flag)}"] if _default(flag) else []
    notes += ["repeatable"] if isinstance(flag, flags.MultiFlag) else []
    about = VERBOSITY if flag.name == "verbosity" else " ".join(ABSL_NOTES.sub("", flag.help).split())
    about = f"{about} ({', '.join(notes)})" if notes else about
    indent = " " * (COLUMN + 4)
    text = textwrap.fill(about, WIDTH, initial_indent=indent, subsequent_indent=indent)
    usage = f"  {_usage(flag)}"
    return f"{usage}\n{text}" if len(usage) > COLUMN + 2 else usage + text[len(usage) :]


def _default(flag: flags.Flag) -> str:
    if flag.default is None or flag.name == "verbosity":
        return ""
    if isinstance(flag.default, list):
        return ",".join("none" if value is None else str(value) for value in flag.default)
    return str(flag.default).lower() if flag.boolean else str(flag.default)


def _usage(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"--[no]{flag.name}"
    if values := getattr(flag.parser, "enum_values", None):
        return f"--{flag.name}={'|'.join(values)}"
    if isinstance(flag.parser, flags.ListParser):
        return f"--{flag.name}=A,B,..."
    return f"--{flag.name}={METAVARS.get(flag.flag_type(), flag.name.upper())}"
