"""What the axes of a Llama's parameters are called. A mesh says what is split over which of its own axes, and by these
names alone (training/sharding.py)."""

from __future__ import annotations

# Last two parts of a parameter's path -> logical axis names (None: no name). What is not listed has none at all.
# "embed" is the model width, "heads", "kv_heads" and "mlp" are what the matrices of a layer write or read.
PARAM_AXES: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocab", "embed"),
    "head/kernel": ("embed", "vocab"),
    "query/kernel": ("layers", "embed", "heads"),
    "key/kernel": ("layers", "embed", "kv_heads"),
    "value/kernel": ("layers", "embed", "kv_heads"),
    "output/kernel": ("layers", "heads", "embed"),
    "gate/kernel": ("layers", "embed", "mlp"),
    "up/kernel": ("layers", "embed", "mlp"),
    "down/kernel": ("layers", "mlp", "embed"),
    # adapters (models/lora.py): a reads what the matrix reads, b writes what it writes
    "query/a": ("layers", "embed", None),
    "query/b": ("layers", None, "heads"),
    "key/a": ("layers", "embed", None),
    "key/b": ("layers", None, "kv_heads"),
    "value/a": ("layers", "embed", None),
    "value/b": ("layers", None, "kv_heads"),
    "output/a": ("layers", "heads", None),
    "output/b": ("layers", None, "embed"),
    "gate/a": ("layers", "embed", None),
    "gate/b": ("layers", None, "mlp"),
    "up/a": ("layers", "embed", None),
    "up/b": ("layers", None, "mlp"),
    "down/a": ("layers", "mlp", None),
    "down/b": ("layers", None, "embed"),
    "item_embedding": (None, "embed"),
    "item_head": ("embed", None),
}


def logical_axes(path: str) -> tuple[str | None, ...]:
    """Names of the axes of the parameter at `path` ("layers/attention/query/kernel"), () for none.

    Whatever has the shape of a parameter (an optimizer's moments, a moving average) has its path's end and its names.
    """
    parts = path.split("/")
    return PARAM_AXES.get("/".join(parts[-2:]), PARAM_AXES.get(parts[-1], ()))
