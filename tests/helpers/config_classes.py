"""Every config dataclass of the repository, found in the sources."""

import ast
import dataclasses
import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def config_classes() -> list[type]:
    """The dataclasses whose names end in Config, of atspeed_jax/ and launch/."""
    found = []
    for folder in ("atspeed_jax", "launch"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
            kinds = [getattr(importlib.import_module(module), name) for name in names if name.endswith("Config")]
            found += [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    return found
