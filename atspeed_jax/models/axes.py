"""What the axes of a Llama's parameters are called. A mesh says what is split over which of its own axes, and by these
names alone (training/sharding.py)."""

from __future__ import annotations

from atspeed_jax.models.unroll import PREFIX

# Matrix of a layer -> what it reads and writes: "embed" is the model width, "heads", "kv_heads" and "mlp" the widths
# within a layer.
MATRICES = {
    "query": ("embed", "heads"),
    "key": ("embed", "kv_heads"),
    "value": ("embed", "kv_heads"),
    "output": ("heads", "embed"),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
}
# End of a parameter's path -> logical axis names (None: no name). What is not listed has none at all. Of an adapter
# (models/lora.py) a reads what its matrix reads, and b writes what that writes.
PARAM_AXES: dict[str, tuple[str | None, ...]] = {
    **{f"{name}/kernel": ("layers", reads, writes) for name, (reads, writes) in MATRICES.items()},
    **{f"{name}/a": ("layers", reads, None) for name, (reads, _) in MATRICES.items()},
    **{f"{name}/b": ("layers", None, writes) for name, (_, writes) in MATRICES.items()},
    "embedding": ("vocab", "embed"),
    "head/kernel": ("embed", "vocab"),
    "item_embedding": (None, "embed"),
    "item_head": ("embed", None),
}


def logical_axes(path: str) -> tuple[str | None, ...]:
    """Names of the axes of the parameter at `path` ("layers/attention/query/kernel"), () for none.

    Whatever has the shape of a parameter (an optimizer's moments, a moving average) has its path's end and its names.
    A layer of its own ("layers_0/attention/query/kernel", models/unroll.py) lacks the axis of the stack.
    """
    parts = path.split("/")
    names = PARAM_AXES.get("/".join(parts[-2:]), PARAM_AXES.get(parts[-1], ()))
    return names[1:] if any(part.startswith(PREFIX) for part in parts) else names
