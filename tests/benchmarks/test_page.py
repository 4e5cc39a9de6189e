"""The page of a suite on made-up rows."""

import pytest

from atspeed_jax.benchmarks import page
from atspeed_jax.reporting import markdown
from atspeed_jax.reporting.tables import Table

RUN = {"command": "python -m launch.benchmark", "written": "2026-11-27 10:00:00"}


def decode_row(method: str, ratio: float | None, **changes) -> dict:
    """A row of suite decode."""
    row = {"shape": "110m", "batch": 1, "prompt": 40, "K": 5, "mode": "strict", "method": method, "ms": 50.0}
    row |= {"target_calls_mean": 4.0 if method == "plain" else 1.0625, "equal": True, "floor_ratio": 1.4}
    interval = {"ratio_low": ratio and ratio - 0.05, "ratio_high": ratio and ratio + 0.05}
    return row | {"ratio_to_plain": ratio, "note": "cost of 110 M parameters"} | interval | changes


ROWS = (
    decode_row("plain", 1.0),
    decode_row("speculative", 1.45),
    decode_row("popularity", 1.2),
    decode_row("plain", 1.0, batch=4),
    decode_row("speculative", 2.0, batch=4),
    decode_row("speculative", 2.5, mode="relaxed"),
)


def test_the_page_of_decode_leads_with_a_sentence_per_shape_and_k():
    document = page.document(
        "decode", [*ROWS, decode_row("plain", 1.0, K=20), decode_row("speculative", 0.8, K=20)], RUN
    )
    assert [headline.sentence for headline in document.headlines] == [
        "110m, K = 5: the same lists in 1.1 calls instead of 4, 1.4x as fast here.",
        "110m, K = 20: plain beam search is faster here: speculation gives the same lists in 1.1 calls instead of 4, "
        "but 0.80x as fast.",
    ]
    assert document.notes == ["cost of 110 M parameters"]
    assert [picture.name for picture in markdown.pictures(document)] == ["ratios_strict", "ratios_relaxed", "floor"]
    assert "110m, speculative, batch 4, prompt 40, K = 5: 2.00" in markdown.pictures(document)[0].alternative


def test_lists_that_differ_get_no_speed_up():
    rows = [decode_row("plain", 1.0), decode_row("speculative", None, equal=False, mismatched_users=2)]
    (headline,) = page.document("decode", rows, RUN).headlines
    assert headline.verdict == "wrong"
    assert "no speed-up is claimed" in headline.sentence


def test_columns_that_say_the_same_stand_apart():
    alike = page._constant(ROWS)
    assert alike == {"shape": "110m", "prompt": 40, "K": 5, "ms": 50.0, "equal": True, "floor_ratio": 1.4}
    table = page.rows_table(ROWS, alike)
    assert list(table.header) == [
        "method", "mode", "batch", "ratio to plain", "ratio low", "ratio high", "target calls mean",
    ]  # fmt: skip
    assert table.rows[1] == ["speculative", "strict", "1", "1.45", "1.4", "1.5", "1.06"]


@pytest.mark.parametrize("suite", ["trie", "input"])
def test_any_suite_has_a_page(tmp_path, suite):
    rows = [{"items": 100, "build_s": 0.125, "fits": True, "widths": [2, 2], "none": None}]
    written = page.write_page(tmp_path / "rows.json", suite, rows)
    assert written == tmp_path / "rows.html"
    text = written.read_text(encoding="utf-8")
    assert f"<title>Benchmark: {suite}</title>" in text
    assert "<td>0.125</td>" in text
    document = page.document(suite, rows, RUN)
    assert not document.headlines
    (table,) = [block for block in document.sections[0].blocks if isinstance(block, Table)]
    assert table.rows == [["100", "0.125", "yes", "2, 2", "–"]]
