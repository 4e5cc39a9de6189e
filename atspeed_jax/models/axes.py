"""Logical names of the axes of a Llama's parameters.

A mesh says which of these names are split over which of its axes
(training/sharding.py). It knows the parameters by these names alone.
"""

from __future__ import annotations

from atspeed_jax.models.unroll import GATE_UP, KEY_VALUE, PREFIX, QUERY_KEY_VALUE, joined_name

# Matrix of a layer -> names of its input axis and output axis. "embed" is the model
# width; "heads", "kv_heads" and "mlp" are the widths within a layer.
MATRICES = {
    "query": ("embed", "heads"),
    "key": ("embed", "kv_heads"),
    "value": ("embed", "kv_heads"),
    "output": ("heads", "embed"),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
}
BIASED = ("query", "key", "value", "output")  # those that may have a bias (models/layers.py)
# End of a parameter's path -> names of its axes; None for an axis without a name. A
# parameter that is not listed has no names. LoRA `a` has its matrix's input axis, `b`
# its output axis; the rank has no name (models/lora.py).
PARAM_AXES: dict[str, tuple[str | None, ...]] = {
    **{f"{name}/kernel": ("layers", inputs, outputs) for name, (inputs, outputs) in MATRICES.items()},
    **{f"{name}/bias": ("layers", MATRICES[name][1]) for name in BIASED},
    **{f"{name}/a": ("layers", inputs, None) for name, (inputs, _) in MATRICES.items()},
    **{f"{name}/b": ("layers", None, outputs) for name, (_, outputs) in MATRICES.items()},
    "embedding": ("vocab", "embed"),
    "head/kernel": ("embed", "vocab"),
    "item_embedding": (None, "embed"),
    "item_head": ("embed", None),
}

JOINED = tuple(map(joined_name, (QUERY_KEY_VALUE, KEY_VALUE, GATE_UP)))


def is_joined(path: str) -> bool:
    """Whether a path is that of several matrices, or biases, in one (`models.unroll`),
    which have no logical names: no axis of them can be split.

    Args:
      path: see `logical_axes`.
    """
    return path.endswith(tuple(f"/{name}/{leaf}" for name in JOINED for leaf in ("kernel", "bias")))


def logical_axes(path: str) -> tuple[str | None, ...]:
    """Looks up the logical names of the axes of a parameter.

    An array with the shape of a parameter, such as an optimizer's moment or a moving
    average, has the end of the parameter's path and therefore the same names.

    Args:
      path: such as "layers/attention/query/kernel". The path of an unrolled layer
        ("layers_0/attention/query/kernel", models/unroll.py) has no axis "layers".

    Returns:
      A name or None per axis; () for a parameter that is not listed.
    """
    parts = path.split("/")
    names = PARAM_AXES.get("/".join(parts[-2:]), PARAM_AXES.get(parts[-1], ()))
    return names[1:] if any(part.startswith(PREFIX) for part in parts) else names
