"""The report on ids: as text, as JSON, and as a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from atspeed_jax.ids.health import Health
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.reporting import html_page
from atspeed_jax.reporting.document import Document, Section, Sentences
from atspeed_jax.reporting.environment import what_was_run
from atspeed_jax.reporting.pictures import Layout, Picture
from atspeed_jax.reporting.plots import axes_grid
from atspeed_jax.reporting.tables import Table, as_text, key_values
from atspeed_jax.utils.files import jsonable

REPORT = "ids_report"
_NO_WARNINGS = "Nothing looks wrong."
_COLORS = "tab20"


def report_files(config: IdsConfig, kind: str, found: Health) -> dict[str, str]:
    """Returns ids_report.txt, ids_report.json and ids_report.html: name -> text.

    Args:
      config: of the ids.
      kind: what the vectors are made of.
      found: the measured ids.
    """
    content = {**asdict(config), "kind": kind, **found.figures, "warnings": found.warnings}
    return {
        f"{REPORT}.html": html_page.render(document(config, kind, found)),
        f"{REPORT}.json": json.dumps(jsonable(content), indent=2, allow_nan=False) + "\n",
        f"{REPORT}.txt": as_report(config, kind, found),
    }


def as_report(config: IdsConfig, kind: str, found: Health) -> str:
    """Returns the report as text: warnings first, then the tables."""
    said = [f"warning: {line}" for line in found.warnings] or [_NO_WARNINGS]
    return "\n".join([*said, "", *(as_text(table) for table in tables(config, kind, found.figures))]) + "\n"


def tables(config: IdsConfig, kind: str, figures: Mapping) -> list[Table]:
    """Returns the tables of the report."""
    unknown = figures["untrained"]["interactions"]
    size = f"{config.levels} levels of {config.codes} codes"
    catalog = {
        "made by": f"{config.method}, {size}, vectors of {kind}, collisions={config.collisions}",
        "items": f"{figures['items']:,}",
        "items that shared codes before collisions were resolved": f"{figures['collided_before']:,}",
        "distinct ids": f"{figures['ids']:,}",
        "items that share an id": f"{figures['collided_items']:,}",
        "items of the largest id": f"{figures['largest_group']:,}",
        "test interactions of items never trained on": "no test" if unknown is None else f"{unknown:.1%}",
    }
    by_level = [
        [
            str(number),
            f"{level['used']} of {level['codes']}",
            f"{level['entropy_bits']:.2f} of {level['most_bits']:.2f}",
            f"{level['largest_of_mean']:.2f}",
            f"{depth['children']:.2f}",
            str(depth["most"]),
        ]
        for number, (level, depth) in enumerate(zip(figures["levels"], figures["depths"], strict=True), start=1)
    ]
    header = ["level", "codes used", "entropy (bits)", "largest / mean code", "codes per prefix", "most"]
    error = [[str(number), f"{share:.1%}"] for number, share in enumerate(figures["unexplained"], start=1)]
    near = [[str(row["depth"]), f"{row['share']:.1%}", f"{row['by_chance']:.1%}"] for row in figures["neighbors"]]
    made = [
        key_values("Catalog", catalog),
        Table("Codes of each level", header, by_level),
        Table("Variance of the vectors that first levels leave unexplained", ["levels", "share"], error),
        Table("Nearest neighbors that share the first codes", ["codes", "share", "by chance"], near),
    ]
    return made if near else made[:-1]  # one item has no neighbor


def document(config: IdsConfig, kind: str, found: Health) -> Document:
    """Returns the page of the report."""
    said = Sentences(found.warnings or [_NO_WARNINGS], listed=bool(found.warnings))
    named = {key: value for key, value in what_was_run().items() if value is not None}
    pictures = [usage_picture(found.figures["levels"]), *(map_picture(name, *at) for name, at in found.maps.items())]
    return Document(
        title="Ids of a catalog",
        about=f"{found.figures['items']:,} items · {config.method} · {config.levels} levels of {config.codes} codes",
        headlines=[],
        notes=[],
        sections=[
            Section("Warnings", [said]),
            Section("Figures", tables(config, kind, found.figures)),
            Section("Pictures", pictures),
            Section("What was run", [key_values("Run", named)]),
        ],
    )


def usage_picture(levels: list[dict]) -> Picture:
    """Draws the items of each code, largest first, with a line per level."""

    def draw(layout: Layout):
        figure, axes = axes_grid(1, 1, width=layout.single)
        axis = axes[0, 0]
        for number, level in enumerate(levels, start=1):
            axis.plot(np.arange(1, len(level["counts"]) + 1), level["counts"], label=f"level {number}")
        axis.set_xlabel("code, most items first")
        axis.set_ylabel("items")
        axis.legend(frameon=False)
        return figure

    alternative = "; ".join(f"level {n}: {level['used']} codes used" for n, level in enumerate(levels, start=1))
    return Picture("usage", "Items of each code, most items first", alternative, draw)


def map_picture(name: str, places: np.ndarray, first: np.ndarray) -> Picture:
    """Draws items in the plane, colored by their first code.

    Args:
      name: of the projection.
      places: [n, 2].
      first: [n] first codes.
    """
    _, color = np.unique(first, return_inverse=True)

    def draw(layout: Layout):
        figure, axes = axes_grid(1, 1, width=layout.single)
        axis = axes[0, 0]
        axis.scatter(places[:, 0], places[:, 1], c=color % 20, cmap=_COLORS, s=5, linewidths=0)
        axis.set_xticks([])
        axis.set_yticks([])
        return figure

    caption = f"{name} of {len(places)} items; a color is a first code (20 colors repeat)"
    alternative = f"{len(places)} items of {color.max() + 1} first codes in the plane"
    return Picture(name.lower().replace("-", ""), caption, alternative, draw)
