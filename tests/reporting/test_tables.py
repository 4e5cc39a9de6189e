from atspeed_jax.reporting.tables import Table, as_markdown, as_text, report_tables, widths_label


def test_plain_aligns_columns():
    table = Table("Title", ["", "calls"], [["beam search", "4.00"], ["x", "1.5"]])
    assert as_text(table) == "Title\n               calls\n  beam search   4.00\n  x              1.5\n"


def test_markdown_table():
    table = Table("Title", ["", "calls"], [["beam search", "4.00"]])
    assert as_markdown(table) == "## Title\n\n|  | calls |\n| --- | ---: |\n| beam search | 4.00 |\n"


def test_quality_has_one_column_for_each_method_and_habit(report):
    quality, differences = report_tables(report)[1:3]
    methods = ("target", "popularity", "covisitation")
    assert list(quality.header) == ["", *(f"{name}, seen {how}" for name in methods for how in ("kept", "removed"))]
    rows = {name: cells for name, *cells in quality.rows}
    assert rows == {
        "users": ["3553", "3553", "–", "–", "–", "–"],
        "Recall@10": ["0.0175", "0.0177 [0.0145, 0.0210]", "0.0079", "0.0089", "0.0181", "0.0191"],
        "NDCG@10": ["0.0095", "0.0096 [0.0078, 0.0115]", "0.0043", "0.0053", "0.0117", "0.0127"],
        "Recall of ids@10": ["0.0185", "0.0187", "–", "–", "–", "–"],
        "true items in the list": ["123 of 7,313", "1,125 of 7,313", "–", "–", "–", "–"],
        "true items that may not be listed": ["0 of 7,313", "45 of 7,313", "–", "–", "–", "–"],
    }
    assert len(rows) == len(quality.rows)
    assert differences.header == ["", "target - covisitation, seen removed"]


def test_no_differences_no_table(report):
    assert len(report_tables(report)) == 6
    del report["quality"]["differences"]
    assert len(report_tables(report)) == 5


def test_decoding_rows(report):
    calls, speed = report_tables(report)[3:5]
    assert calls.rows[0] == ["beam search", "20", "–", "vocab", "3553", "4.000", "0.000", "0.000", "–", "–", "–", "–"]
    shown = dict(zip(calls.header, calls.rows[1], strict=True))
    assert shown["method"] == "speculative, draft model"
    assert shown["widths"] == "all, 64, 96"
    assert shown["acceptance by level"] == "1.00 / 0.88 / 0.50"
    assert (shown["mismatched"], shown["near ties"], shown["AS@K"]) == ("0", "2", "2.625")
    assert speed.rows[1][4:] == ["8.2", "11.5", "1.25", "210.0"]
    assert speed.rows[3][4:] == ["–", "–", "1.25", "210.0"]


def test_speed_over_hugging_face_is_shown_where_measured(report):
    report["decoding"][1]["ws_vs_hf_generate"] = 1.9
    speed = report_tables(report)[4]
    column = list(speed.header).index("WS@K over Hugging Face generate")
    assert [row[column] for row in speed.rows] == ["–", "1.90", "–", "–"]


def test_widths_label():
    assert widths_label(("all", 64, 96)) == "all, 64, 96"
    assert widths_label(("all", 64, 96), 128) == "all, 64, 96; best 128"
    assert widths_label(None) == widths_label([]) == "–"
