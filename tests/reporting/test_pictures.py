import io
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from atspeed_jax.reporting import contents, markdown
from atspeed_jax.reporting.pictures import NARROW, WIDE

CURVES = {"target": [{"step": step, "split": "train", "loss": 1 / step} for step in range(1, 9)]}
NAMES = ["speed_up", "latency", "target_calls", "acceptance", "quality", "loss"]


@pytest.fixture
def pictures(report):
    return markdown.pictures(contents.document(report, CURVES))


def test_every_picture_is_a_png_and_an_svg(pictures):
    assert [picture.name for picture in pictures] == NAMES
    for picture in pictures:
        image = imread(io.BytesIO(picture.png()), format="png")
        assert image.shape[0] > 300
        assert image.shape[1] > 600
        assert image.std() > 0.05
        for layout in (WIDE, NARROW):
            text = picture.svg(layout).decode()
            assert "<svg" in text
            assert "<script" not in text


def test_drawing_is_deterministic(report, pictures):
    again = markdown.pictures(contents.document(report, CURVES))
    for one, other in zip(pictures, again, strict=True):
        assert one.png() == other.png()
        assert one.svg(NARROW) == other.svg(NARROW)


def test_pyplot_is_left_alone():
    program = (
        "import sys\n"
        "from atspeed_jax.reporting.loss_plots import losses\n"
        "from atspeed_jax.reporting.pictures import WIDE\n"
        "assert losses({'a': [{'step': 1, 'loss': 1.0}]}).svg(WIDE)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).resolve().parents[2])
