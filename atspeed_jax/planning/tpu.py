"""TPUs that are not here: their compiler runs on any CPU.

The compiler comes with the package libtpu. It compiles a program for the devices of a
slice, which are shapes alone: nothing can be put on them, and nothing runs.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from atspeed_jax.training.chips import Chip

# chip -> devices of a slice -> topology of the slice, as libtpu names it. One device is
# the first of the smallest slice.
_2D = {1: "2x2", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_3D = {1: "2x2x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
SLICES = {"v5e": _2D, "v5p": _3D, "v6e": _2D}
# The least effort of the compiler takes a fraction of the time. Its program does not
# prefetch weights into on-chip memory, which the cost analysis would count twice.
QUICK: Any = {"exec_time_optimization_effort": -1.0}
NEAR_PEAK = 0.9  # of the chip's bandwidth: the analysis may round the peak


class TpuCompilerError(ValueError):
    """A TPU that cannot be compiled for."""


def tpu_devices(chip: str, count: int) -> list[Any]:
    """Makes the devices of a slice, to compile for.

    Args:
      chip: a name in `SLICES`.
      count: devices of the slice.

    Raises:
      TpuCompilerError: the chip or the slice is unknown, or libtpu is not installed.
    """
    if chip not in SLICES:
        raise TpuCompilerError(f"chip {chip!r} is none of the TPUs that can be compiled for: {', '.join(SLICES)}")
    if count not in SLICES[chip]:
        sizes = ", ".join(map(str, SLICES[chip]))
        raise TpuCompilerError(f"there is no {chip} slice of {count} devices; expected one of {sizes}")
    if not has_compiler():
        raise TpuCompilerError(
            "the TPU compiler is not installed: pip install --no-deps --target=DIR libtpu (the version that "
            "pip install 'jax[tpu]' would take), then set TPU_LIBRARY_PATH=DIR/libtpu/libtpu.so"
        )
    try:
        found = topologies.get_topology_desc(f"{chip}:{SLICES[chip][count]}", "tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise TpuCompilerError(
            f"TPU_LIBRARY_PATH={os.environ.get('TPU_LIBRARY_PATH')}: the TPU compiler cannot be loaded "
            f"({str(error).splitlines()[0]}); expected the path of a libtpu.so"
        ) from error
    return list(found)[:count]


def has_compiler() -> bool:
    """Tells whether libtpu is installed, or TPU_LIBRARY_PATH names it."""
    named = os.environ.get("TPU_LIBRARY_PATH")
    return bool(named and Path(named).is_file()) or importlib.util.find_spec("libtpu") is not None


def seconds(lowered: jax.stages.Lowered, chip: Chip) -> float:
    """Compiles a program without loops and returns the compiler's estimate of its time.

    The estimate is "optimal_seconds" of XLA's cost analysis. For each instruction the
    analysis takes the larger of operations over the chip's rate and bytes over the
    memory's rate, and adds these times up. It knows no time to start an instruction. It
    counts a sort or a gather by operations and bytes alone, and bytes of the on-chip
    memory as those of HBM. Of a condition the longer branch counts.

    Args:
      lowered: the program.
      chip: for which it is compiled.

    Raises:
      TpuCompilerError: the program has an instruction whose time the analysis does not
        know.
    """
    found: Any = lowered.compile(compiler_options=QUICK).cost_analysis()
    # The analysis gives an instruction that it does not know -1 second, without a word.
    least = NEAR_PEAK * found["bytes accessed"] / chip.hbm_bytes
    if found["optimal_seconds"] < least:
        raise TpuCompilerError(
            f"the compiler estimates {found['optimal_seconds']:.3g} s for a program that reads and writes "
            f"{found['bytes accessed']:.3g} bytes: it does not know all instructions; leave --compiler=tpu out"
        )
    return found["optimal_seconds"]


def padding(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled) -> int:
    """Counts the bytes that a device adds to the arguments of a program.

    A TPU keeps arrays in tiles, and fills the last tile of an axis.
    """
    shapes = jax.tree.leaves(lowered.args_info)
    placed = jax.tree.leaves(compiled.input_shardings)
    if len(placed) != len(shapes):  # an argument that is not used has no place
        return 0
    plain = sum(math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in zip(shapes, placed, strict=True))
    memory: Any = compiled.memory_analysis()
    return max(0, memory.argument_size_in_bytes - plain)
