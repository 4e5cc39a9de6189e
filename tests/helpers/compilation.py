"""How hard XLA works on a program: in tests this small, compiling is most of the time."""

import contextlib

import jax

FLAG = "jax_disable_most_optimizations"


@contextlib.contextmanager
def compile_quickly(quickly: bool = True):
    """Programs compiled meanwhile take less time to compile and more to run; their numbers agree to rounding."""
    before = jax.config.read(FLAG)
    jax.config.update(FLAG, quickly)
    try:
        yield
    finally:
        jax.config.update(FLAG, before)
