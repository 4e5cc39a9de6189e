"""What mains that decode with a trained run share."""

from pathlib import Path

from atspeed_jax.reporting.tables import Table, as_markdown, as_text
from atspeed_jax.utils import files


def publish(path: Path, found: dict | list, table: Table) -> None:
    """Writes what was measured to PATH.json and its table to PATH.md, and prints the table."""
    files.write_json(path.with_suffix(".json"), found)
    files.write_text(path.with_suffix(".md"), as_markdown(table))
    print(as_text(table))
