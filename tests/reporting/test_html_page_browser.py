"""Opens report.html in headless Chromium, where there is one, and looks at the picture."""

import html
import re
import shutil
import subprocess

import pytest
from matplotlib.image import imread

from atspeed_jax.reporting import contents, html_page
from reports import EXAMPLES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CURVES = {"target": [{"step": step, "split": "train", "loss": 1 / step} for step in range(1, 9)]}
# The page in a frame as wide as a phone; its size is written where --dump-dom shows it.
FRAME = """<body style="margin:0"><p id="size"></p><iframe id="f" style="width:{width}px;height:{height}px;border:0"
srcdoc="{page}"></iframe><script>const f = document.getElementById("f");
f.onload = () => {{ const d = f.contentDocument.documentElement; document.getElementById("size").textContent =
`${{d.scrollWidth}} ${{d.clientWidth}} ${{d.scrollHeight}} ${{f.contentDocument.images.length}} ` +
[...f.contentDocument.images].filter(i => i.complete && i.naturalWidth).length; }};</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture
def page(report) -> str:
    report["dataset"]["name"] = "a-data-set-whose-name-is-longer-than-a-phone-is-wide-" * 3
    report["decoding"][1]["breakdown_ms"] = {"target": 6.0, "draft": 2.0, "rest": 2.0}
    report |= {"examples": EXAMPLES, "run": {"command": "x" * 300, "config": {"name": "y" * 300}}}
    return html_page.render(contents.document(report, CURVES))


def chromium(directory, *arguments: str) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={directory}/profile"]
    command = [CHROMIUM, *flags, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_its_window(tmp_path, page, width):
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, height=900, page=html.escape(page)))
    dom = chromium(tmp_path, "--virtual-time-budget=10000", "--dump-dom", f"file://{frame}")
    size = re.search(r'<p id="size">([0-9 ]+)</p>', dom)
    assert size, dom[-500:]
    scroll, client, height, images, loaded = map(int, size[1].split())
    assert scroll == client == width  # wide tables scroll in their box, the page does not
    assert height > 1000
    assert images == loaded == 7


def test_the_picture_is_not_blank(tmp_path, page):
    (tmp_path / "report.html").write_text(page)
    shot = tmp_path / "shot.png"
    chromium(tmp_path, "--window-size=1200,2400", f"--screenshot={shot}", f"file://{tmp_path}/report.html")
    image = imread(shot)
    assert image.shape[:2] == (2400, 1200)
    for part in (image[:600], image[600:1200], image[1200:]):  # headlines; figures; what follows
        assert part[..., :3].std() > 0.03
        assert len({tuple(color) for color in part[::7, ::7, :3].reshape(-1, 3).round(2).tolist()}) > 20
