"""The flags of a main in the process of the tests, where mains are imported and none is started."""

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType

from absl import flags

from launch import stage


@contextlib.contextmanager
def flags_of(main: ModuleType, arguments: Sequence[str] | None = None) -> Iterator[None]:
    """Defines the flags of a main for the block, and parses these arguments if they are given."""
    before, argv = set(flags.FLAGS), sys.argv
    stage.define_flags()
    getattr(main, "define_flags", stage.no_flags)()
    try:
        if arguments is not None:
            sys.argv = [main.__name__, *arguments]  # where ml_collections looks for overrides
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of how config_flags loads a file
                flags.FLAGS(sys.argv)
        yield
    finally:
        sys.argv = argv
        flags.FLAGS.unparse_flags()
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
