"""A picture of a report: how it is drawn, and its bytes as PNG or SVG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


class Layout(NamedTuple):
    """How wide a figure may be.

    Attributes:
      columns: most panels in a row.
      single: width of a figure with one panel, in inches.
    """

    columns: int
    single: float


WIDE = Layout(columns=3, single=6.4)
NARROW = Layout(columns=1, single=4.2)  # a phone held upright


class Picture(NamedTuple):
    """A figure with what is said about it.

    Attributes:
      name: of its file, without ending.
      caption: what it shows, in one line.
      alternative: what it shows, with figures, for readers who do not see it.
      draw: layout -> the figure.
    """

    name: str
    caption: str
    alternative: str
    draw: Callable[[Layout], Figure]

    def png(self) -> bytes:
        """The wide figure as a PNG file."""
        return png(self.draw(WIDE))

    def svg(self, layout: Layout) -> bytes:
        """The figure as an SVG file, the same bytes for the same data."""
        return svg(self.draw(layout))


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as the bytes of an SVG file, without the time of its making."""
    buffer = io.BytesIO()
    # Letters become paths: the same picture on every device. The salt makes ids repeat.
    with matplotlib.rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
