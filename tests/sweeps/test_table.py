"""Tables of a sweep, by hand."""

from atspeed_jax.sweeps.table import pairs_table, sweep_row, sweep_table


def row(run, seed, calls, **changes):
    made = {
        "K": 20,
        "mode": "strict",
        "constraint": "trie",
        "score_norm": "vocab",
        "widths": ["all", 96],
        "budget": None,
        "tolerance": 0.0,
        "temperature": 1.0,
        "users": 3,
        "target_calls_mean": sum(calls) / 3,
        "coverage_by_level": [1.0, 0.5],
        "calls_by_user": calls,
        "overlap_with_exact": 1.0,
        "quality": {"recall@20": 0.25, "ndcg@20": 0.125},
    } | changes
    return sweep_row(run, "tree_kd", seed, "abc", made)


ROWS = [
    row("slow", 0, [2, 2, 2]),
    row("fast", 0, [1, 1, 1]),
    row("fast", 1, [1, 1, 2.5], coverage_by_level=[1.0, None]),
    row("fast", 0, [3, 3, 3], K=5, quality={"recall@5": 0.5, "ndcg@5": 0.5}),
]


def test_runs_side_by_side():
    table = sweep_table(ROWS)
    assert [cells[0] for cells in table.rows] == ["fast", "slow", "fast"], "fewest calls first, each way by itself"
    assert {len(cells) for cells in table.rows} == {len(table.header)}
    named = dict(zip(table.header, table.rows[0], strict=True))
    assert named["target calls"] == "1.250 ± 0.354"
    assert named["seeds"] == "2"
    assert named["coverage by level"] == "1.00 / 0.50"
    assert named["Recall@K"] == "0.2500 ± 0.0000"
    assert dict(zip(table.header, table.rows[1], strict=True))["target calls"] == "2.000"


def test_ways_that_differ_in_one_setting_are_not_taken_for_seeds():
    """Each of them is a row of its own, and its settings stand in the row."""
    changes = [{}, {"budget": 64}, {"budget": 128}, {"tolerance": 0.1}, {"mode": "relaxed", "temperature": 2.0}]
    rows = [row(run, 0, [1, 2, 3], **change) for change in changes for run in ("fast", "slow")]
    table = sweep_table(rows)
    named = [dict(zip(table.header, cells, strict=True)) for cells in table.rows if cells[0] == "fast"]
    assert [cells["seeds"] for cells in named] == ["1"] * len(changes)
    assert [cells["widths"] for cells in named[:3]] == ["all, 96", "all, 96; best 64", "all, 96; best 128"]
    assert [cells["mode"] for cells in named[2:]] == ["strict", "strict, tolerance 0.1", "relaxed, temperature 2"]
    pairs = pairs_table(rows, "slow", samples=100, seed=0)
    assert [cells[5] for cells in pairs.rows[:3]] == [cells["widths"] for cells in named[:3]]


def test_pairs_of_users():
    table = pairs_table(ROWS, "slow", samples=100, seed=0)
    first, second = table.rows
    assert table.header[-2:] == ["seed 0", "seed 1"]
    assert first[0] == "fast"
    assert first[-2] == "-1.000 [-1.000, -1.000]"
    assert first[-1] == "–"
    assert second[4] == "5"
    assert second[-2:] == ["–", "–"], "the reference was not measured so"
