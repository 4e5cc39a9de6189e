"""Reads the cost of a compiled program off its text.

The cost is the FLOPs of matrix products, the bytes of collectives, and the number of
kernels.

XLA's `cost_analysis` counts the body of a loop once, however often it runs. The layers
of a model are such a loop.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from atspeed_jax.utils.ranges import shown

FLOPS, LOOPS = "flops", "loops of unknown length"
# Bytes that a device receives in a ring algorithm, for a result of `size` bytes and a
# group of n devices.
COLLECTIVES: dict[str, Callable[[float, int], float]] = {
    "all-gather": lambda size, n: size * (n - 1) / n,
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "reduce-scatter": lambda size, n: size * (n - 1),
    "all-to-all": lambda size, n: size * (n - 1) / n,
    "collective-permute": lambda size, _: size,
}
BYTES = {
    **{"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2},
    **{"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16},
}
# Operations that compute nothing when the program runs.
NO_KERNELS = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "iota", "after-all", "partition-id")
# Libraries that multiply matrices for a compiled program.
_PRODUCT = re.compile(r'custom_call_target="[^"]*(?:gemm|matmul|dot)')
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")


class HloError(ValueError):
    """A text that is no compiled program, or that this reader cannot interpret."""


class Instruction(NamedTuple):
    """One instruction, as the text writes it.

    Attributes:
      type: type of the result.
      opcode: name of the operation.
      rest: operands and attributes.
    """

    type: str
    opcode: str
    rest: str


class Kernels(NamedTuple):
    """A number of kernels, which is added, subtracted and multiplied part by part.

    Attributes:
      products: those that multiply matrices.
      others: the rest.
    """

    products: int
    others: int

    @property
    def total(self) -> int:
        return self.products + self.others

    def __add__(self, other: Kernels) -> Kernels:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Kernels(self.products + other.products, self.others + other.others)

    def __sub__(self, other: Kernels) -> Kernels:
        return self + other * -1

    def __mul__(self, times: int) -> Kernels:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Kernels(self.products * times, self.others * times)


class Program(NamedTuple):
    """A compiled program.

    Attributes:
      computations: name of a computation -> name of an instruction -> instruction.
      entry: name of the computation that runs first.
      devices: number of devices over which the program is split.
    """

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str
    devices: int

    def cost(self, branch: Callable = max) -> Counter:
        """Counts what the program does on one device.

        Args:
          branch: max or min: the branch of a conditional that counts, by its FLOPs.

        Returns:
          FLOPs (FLOPS), bytes received by each kind of collective (`COLLECTIVES`), and
          the number of loops of unknown length (LOOPS), whose body counts once.
        """

        @functools.cache
        def of(name: str) -> Counter:
            total: Counter = Counter()
            for instruction in self.computations[name].values():
                total.update(self._own(instruction, self.computations[name]))
                times, called = _called(instruction)
                if called and instruction.opcode == "conditional":
                    called = [branch(called, key=lambda one: (of(one)[FLOPS], sum(of(one).values())))]
                if instruction.opcode == "while" and times is None:
                    total[LOOPS] += 1
                for one in called:
                    total.update({what: (times or 1) * amount for what, amount in of(one).items()})
            return total

        return of(self.entry)

    def kernels(self) -> Kernels:
        """Counts the kernels that one run launches: operations that are not in a fusion.

        Loops of unknown length count once, and of a conditional the branch with most
        kernels.
        """

        @functools.cache
        def of(name: str) -> Kernels:
            total = Kernels(0, 0)
            for instruction in self.computations[name].values():
                times, called = _called(instruction)
                if instruction.opcode == "conditional":
                    total += max(map(of, called), key=lambda one: one.total)
                elif instruction.opcode in ("while", "call"):
                    for one in called:
                        total += of(one) * (times or 1)
                elif instruction.opcode not in NO_KERNELS and not instruction.opcode.endswith("-done"):
                    total += Kernels(1, 0) if self._multiplies(instruction) else Kernels(0, 1)
            return total

        return of(self.entry)

    def _multiplies(self, instruction: Instruction) -> bool:
        """Tells whether a kernel multiplies matrices."""
        if instruction.opcode == "dot" or (instruction.opcode == "custom-call" and _PRODUCT.search(instruction.rest)):
            return True
        inside = (one for name in _called(instruction)[1] for one in self.computations[name].values())
        return instruction.opcode == "fusion" and any(map(self._multiplies, inside))

    def _own(self, instruction: Instruction, others: Mapping[str, Instruction]) -> dict[str, float]:
        """Counts what an instruction does, without the computations that it calls."""
        if instruction.opcode == "dot":
            lhs = others[re.findall(r"%?([\w.\-]+)[,)]", instruction.rest)[0]]
            sizes = _sizes(lhs.type)[0][1]
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
            axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
            ((_, out),) = _sizes(instruction.type)
            return {FLOPS: 2.0 * math.prod(out) * math.prod(sizes[axis] for axis in axes)}
        if instruction.opcode in COLLECTIVES:
            size = sum(BYTES[kind] * math.prod(sizes) for kind, sizes in _sizes(instruction.type))
            return {instruction.opcode: COLLECTIVES[instruction.opcode](size, self._group(instruction))}
        if instruction.opcode.removesuffix("-start") in COLLECTIVES:
            raise HloError(f"{instruction.opcode}: only programs compiled for CPUs are read, which have none")
        return {}

    def _group(self, instruction: Instruction) -> int:
        """Reads the number of devices in a group of a collective."""
        if instruction.opcode == "collective-permute":
            return self.devices
        text = instruction.rest.partition("replica_groups=")[2]
        if groups := re.match(r"\{\{([\d,]+)\}", text):
            return len(groups[1].split(","))
        if groups := re.match(r"\[\d+,(\d+)\]", text):
            return int(groups[1])
        if groups := re.match(r"mesh\[([^\]]*)\](?:, device_ids=[^{]*)? ?\{([^}]*)\}", text):
            sizes = dict(re.findall(r"'?(\w+)'?=(\d+)", groups[1]))
            named = re.findall(r"'?(\w+)'?(?::\(\d+\)(\d+))?(?:,|$)", groups[2].replace(" ", ""))
            return math.prod(int(part or sizes[axis]) for axis, part in named)
        if text.startswith("{}") or not text:
            return self.devices
        raise HloError(f"replica_groups={shown(text, 60)} are written in a way that is not known")


def read_program(text: str) -> Program:
    """Reads a program.

    Args:
      text: of `compiled.as_text()`.

    Raises:
      HloError: the text has no program.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            if current is not None:
                current[found[1]] = Instruction(*found.groups()[1:])
        elif not line.startswith((" ", "HloModule")) and (found := _HEADER.match(line)):
            current = computations[found[2]] = {}
            entry = found[2] if found[1] else entry
    if entry is None:
        raise HloError("the text has no ENTRY computation: give that of a compiled program")
    devices = re.search(r"num_partitions=(\d+)", text)
    return Program(computations, entry, int(devices[1]) if devices else 1)


def _sizes(text: str) -> list[tuple[str, list[int]]]:
    """Lists element type and axes of every array of a type."""
    return [(kind, [int(size) for size in axes.split(",") if size]) for kind, axes in _SHAPE.findall(text)]


def _called(instruction: Instruction) -> tuple[int | None, list[str]]:
    """Tells how often an instruction runs (None if unknown) which computations."""
    rest = instruction.rest
    if instruction.opcode == "while":
        count = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', rest)
        return int(count[1]) if count else None, re.findall(r"(?:body|condition)=%?([\w.\-]+)", rest)
    if instruction.opcode == "conditional":
        listed = re.search(r"branch_computations=\{([^}]*)\}", rest)
        named = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", rest)
        return 1, re.findall(r"[\w.\-]+", listed[1]) if listed else named
    if instruction.opcode in ("fusion", "call", "custom-call"):
        return 1, re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", rest)
    return 1, []
