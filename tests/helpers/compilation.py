"""How hard XLA works on a program: in tests this small, compiling is most of the time."""

import contextlib
import os
import subprocess
import sys

import jax

FLAG = "jax_disable_most_optimizations"
FLAGS_OF_XLA = (
    # With it ./launch/test.sh took 549 s, without it 878 s (pytest's figures, 2-core AMD EPYC, jax 0.10.2, 2026-11-24).
    "--xla_cpu_use_fusion_emitters=false",
    # Putting the parts of a small program together again costs more than they save.
    "--xla_cpu_parallel_codegen_split_count=1",
)


def emit_plainly() -> None:
    """Has XLA emit fusions on the CPU as it used to, and a program in one part, in this process and those it starts.

    To be called before JAX is first used. XLA aborts the process over a flag that it does not know, and such flags come
    and go, so another process tries each first.
    """
    for flag in FLAGS_OF_XLA:
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        tried = [sys.executable, "-c", "import jax; jax.devices()"]
        if subprocess.run(tried, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode == 0:
            os.environ["XLA_FLAGS"] = flags


@contextlib.contextmanager
def compiled_as_for_users():
    """Programs take more time to compile meanwhile, and less to run; their numbers agree with the others' to rounding.

    What was compiled before is forgotten.
    """
    jax.clear_caches()
    jax.config.update(FLAG, False)
    try:
        yield
    finally:
        jax.config.update(FLAG, True)
