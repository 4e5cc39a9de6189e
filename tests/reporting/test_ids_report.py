import json

import numpy as np

from atspeed_jax.ids.collisions import groups
from atspeed_jax.ids.health import Health, branching, collisions, prefixes_of, usage
from atspeed_jax.ids.settings import IdsConfig
from atspeed_jax.reporting.ids_report import as_report, document, report_files

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 0], [1, 2]])
FIGURES = {
    "items": 5,
    "collided_before": 4,
    **collisions(groups(CODES)),
    "levels": [usage(CODES[:, level], 4) for level in (0, 1)],
    "depths": branching(prefixes_of(CODES)),
    "unexplained": [0.5, 0.25],
    "neighbors": [{"depth": 1, "share": 0.8, "by_chance": 0.5}],
    "untrained": {"interactions": None, "items": None},
}
CONFIG = IdsConfig(levels=2, codes=4, collisions="keep")
FOUND = Health(FIGURES, ["level 2 uses <3> of 4 codes"], {"PCA": (np.zeros((5, 2)), CODES[:, 0])})


def test_a_report_has_three_forms():
    files = report_files(CONFIG, "text", FOUND)
    assert sorted(files) == ["ids_report.html", "ids_report.json", "ids_report.txt"]
    assert files["ids_report.txt"] == as_report(CONFIG, "text", FOUND)
    content = json.loads(files["ids_report.json"])
    assert content["method"] == "kmeans"
    assert content["levels"][1]["used"] == 3
    assert content["warnings"] == FOUND.warnings
    page = files["ids_report.html"]
    assert "level 2 uses &lt;3&gt; of 4 codes" in page
    assert page.count("<figure") == 2
    assert "PCA of 5 items" in page


def test_the_text_begins_with_the_warnings_and_shows_the_figures():
    lines = as_report(CONFIG, "text", FOUND).splitlines()
    assert lines[0] == "warning: level 2 uses <3> of 4 codes"
    rows = [line.split() for line in lines]
    assert ["1", "2", "of", "4", "0.97", "of", "2.00", "2.40", "2.00", "2"] in rows
    assert ["2", "25.0%"] in rows
    fine = as_report(CONFIG, "text", Health(FIGURES, [], {}))
    assert fine.startswith("Nothing looks wrong.")
    assert next(section.title for section in document(CONFIG, "text", FOUND).sections) == "Warnings"


def test_one_item_has_no_table_of_neighbors():
    title = "Nearest neighbors that share the first codes"
    assert title in as_report(CONFIG, "text", FOUND)
    assert title not in as_report(CONFIG, "text", Health(FIGURES | {"neighbors": []}, [], {}))
