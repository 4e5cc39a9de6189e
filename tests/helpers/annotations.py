"""Checks of annotations while tests run: shapes and types of arguments and results in the rooms that hold arrays."""

import functools
import inspect

import jax
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOMS = tuple(f"atspeed_jax.{room}" for room in ("alignment", "decoding", "items", "models", "shapes"))

_beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float too


def checked(function):
    """The function, raising TypeCheckError for an argument or a result that is not what its annotation says.

    The fields of a pytree are checked where all its leaves are arrays of JAX: the same class also holds what
    `jax.tree.map` and JAX itself put into it, such as axes, shapes, placements and NumPy arrays on the host. Settings
    check themselves (`__post_init__`), with messages for their users.
    """
    check = _beartyped(function)
    if function.__name__ != "__init__":
        return check
    signature = inspect.signature(function)

    @functools.wraps(function)
    def construct(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        if hasattr(self, "_flax_dataclass"):
            nodes = [given.get(name) for name, field in self.__dataclass_fields__.items() if is_node(field)]
            leaves = jax.tree.leaves(nodes)
            if not leaves or not all(isinstance(leaf, jax.Array) for leaf in leaves):
                return
        if not hasattr(self, "__post_init__"):
            check(self, *args, **kwargs)

    return construct


def is_node(field) -> bool:
    """Whether a field of a pytree holds leaves, not a static value."""
    return field.metadata.get("pytree_node", True)


def check_annotations() -> None:
    """Has the modules of ROOMS checked as they are imported; to be called before the first of them is."""
    install_import_hook(ROOMS, "annotations.checked")
