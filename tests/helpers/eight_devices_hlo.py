"""A process of its own, with 8 CPU devices: what compiled programs cost a device, as read and by hand (JSON)."""

import functools
import json

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from atspeed_jax.planning.hlo import read_program

ROWS, WIDTH, DEPTH, FLOAT = 16, 32, 5, 4


def layers(mesh, x, stacked):
    """Weights split over devices, gathered whole in every layer."""
    whole = NamedSharding(mesh, PartitionSpec())

    def layer(x, w):
        return jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), None

    return jax.lax.scan(layer, x, stacked)[0]


def split_products(x, w):
    """Both split along what is summed."""
    return x @ w


def main():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    two = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def shape(mesh, sizes, *names):
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*names)))

    def cost(function, *shapes, **how):
        return dict(read_program(jax.jit(function, **how).lower(*shapes).compile().as_text()).cost())

    product = 2 * ROWS * WIDTH * WIDTH / 8
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows, stacked = shape(mesh, (ROWS, WIDTH), "a"), shape(mesh, (DEPTH, WIDTH, WIDTH), None, "a")
    grouped = shape(two, (ROWS, WIDTH), "a"), shape(two, (DEPTH, WIDTH, WIDTH), None, "b")
    halves = shape(mesh, (ROWS, WIDTH), None, "a"), shape(mesh, (WIDTH, WIDTH), "a")
    kernel = DEPTH * WIDTH * WIDTH * FLOAT
    report = {
        "gathered in every layer": (
            cost(functools.partial(layers, mesh), rows, stacked),
            {"flops": DEPTH * product, "all-gather": kernel * 7 / 8},
        ),
        "gathered within groups of four": (
            cost(functools.partial(layers, two), *grouped),
            {"flops": DEPTH * 4 * product, "all-gather": kernel * 3 / 4},
        ),
        "partial sums": (
            cost(split_products, *halves, out_shardings=everywhere),
            {"flops": product, "all-reduce": 2 * ROWS * WIDTH * FLOAT * 7 / 8},
        ),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
