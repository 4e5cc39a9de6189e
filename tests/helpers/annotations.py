"""Checks of annotations while tests run: shapes and types of arguments and results in the rooms that hold arrays."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ROOMS = tuple(f"atspeed_jax.{room}" for room in ("alignment", "decoding", "items", "models", "shapes"))

# A function that raises TypeCheckError for an argument or a result that is not what it says; an int is a float too.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check_annotations() -> None:
    """Has the modules of ROOMS checked as they are imported; to be called before the first of them is."""
    install_import_hook(ROOMS, "annotations.checked")
