"""The table of modes on the small run: every row there, the exact modes without a mismatch, figures by hand."""

import dataclasses

import numpy as np
import pytest

from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.evaluation import modes
from atspeed_jax.evaluation.modes import ModesConfig, ModeTable
from atspeed_jax.evaluation.store import MeasurementStore
from atspeed_jax.reporting.tables import mode_table
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.settings import DecodeConfig, Setting

CONFIG = ModesConfig(
    beams=(3,),
    main_beams=(),
    widths=(("all", 10),),
    drafter="draft",
    norms=("trie",),
    tolerances=(0.3,),
    budgets=(),
    temperature=1.0,
    seeds=2,
)


@pytest.fixture(scope="module")
def made(small_run, tmp_path_factory):
    evaluation = small_run.run.measurements()
    evaluation.store = MeasurementStore(tmp_path_factory.mktemp("modes"), print)
    return evaluation, ModeTable(evaluation, CONFIG).rows()


def test_every_combination_has_its_row(made):
    _evaluation, rows = made
    seen = [(row["method"], row["mode"], row["tolerance"], row["budget"]) for row in rows]
    assert len(set(seen)) == len(seen) == 3 + 6
    for row in rows:
        assert row["K"] == 3
        assert row["users"] == 4
        assert row["seeds"] == (1 if row["mode"] in ("strict", "stochastic") else 2)
    both = modes.settings(dataclasses.replace(CONFIG, norms=("vocab", "trie"), beams=(3, 5), budgets=(6,)), 2)
    assert len(set(both)) == len(both) == 2 * (2 + 6) + 2 * (3 + 7)
    assert not [s for s in both if s.search.mode == "stochastic" and s.search.score_norm == "vocab"]


def test_a_tuned_setting_is_shown_beside_the_widths():
    config = dataclasses.replace(CONFIG, norms=("vocab",), beams=(3, 5))
    fast = Setting.strict("popularity", 5, DecodeConfig((8, 8), 2, "trie"))
    both = modes.settings(dataclasses.replace(config, tuned={3: Setting.beam_search(3, "vocab"), 5: fast}), 2)
    more = set(both) - set(modes.settings(config, 2))
    kinds = {("strict", 0), ("strict", 0.3), ("relaxed", 0), ("coupled", 0), ("relaxed_reference", 0)}
    assert {(s.search.mode, s.search.tolerance) for s in more} == kinds
    trees = {(s.drafter, s.search.beams, s.search.widths, s.search.score_norm) for s in more}
    assert trees == {("popularity", 5, (8, 8), "vocab")}
    alone = modes.settings(
        dataclasses.replace(config, widths=(), tuned={3: Setting.beam_search(3, "vocab"), 5: fast}), 2
    )
    assert {s.search.widths for s in alone} == {(), (8, 8)}
    assert len(both) == len(set(both))


@pytest.mark.slow
def test_the_papers_constraint_counts_what_does_not_exist(small_run, tmp_path):
    evaluation = small_run.run.measurements()
    evaluation.store = MeasurementStore(tmp_path, print)
    config = dataclasses.replace(CONFIG, constraints=("levels",), beams=(16,), widths=(("all", 16),), norms=("vocab",))
    table = ModeTable(evaluation, config)
    made = modes.settings(config, 2)
    wanted = [one for one in made if one.search.mode == "strict" and not one.search.tolerance]
    alone, strict = (table._row(setting, evaluation.some) for setting in wanted if setting.search.budget is None)
    assert alone["constraint"] == strict["constraint"] == "levels"
    assert strict["mismatched_users"] == 0
    assert 0 < strict["places_without_item"] == alone["places_without_item"] < 1
    assert alone["overlap_with_exact"] == strict["overlap_with_exact"] == 1
    assert strict["short_lists"] == 0
    assert all("vocab, levels" in cells for cells in mode_table([alone, strict]).rows)


def test_main_beams_are_measured_on_all_users(small_run, tmp_path, monkeypatch):
    evaluation = small_run.run.measurements()
    evaluation.store = MeasurementStore(tmp_path, print)
    monkeypatch.setattr(
        ModeTable, "_row", lambda _, setting, users: {"K": setting.search.beams, "users": len(users.users)}
    )
    rows = ModeTable(evaluation, dataclasses.replace(CONFIG, beams=(10, 3), main_beams=(10,))).rows()
    everyone = len(evaluation.everyone.users)
    assert {(row["K"], row["users"]) for row in rows} == {(10, everyone), (3, 4)}
    assert everyone > 4


def test_exact_modes_give_the_targets_own_lists(made):
    _, rows = made
    for row in rows:
        exact = row["mode"] in ("strict", "stochastic", "coupled") and not row["tolerance"]
        assert (row["mismatched_users"] == 0) if exact else row["mismatched_users"] is None
        if exact:
            assert set(row["difference_to_baseline"]["intervals"][f"ndcg@{row['K']}"]) == {0.0}
        assert (row["overlap_with_exact"] == 1) if exact and row["mode"] == "strict" else row["overlap_with_exact"] <= 1
        assert 1 <= row["target_calls_mean"] <= 3
        if row["mode"] != "relaxed_reference":
            assert row["short_lists"] == 0
        assert (row["given_up_mean"] > 0) <= (row["tolerance"] > 0)


def test_a_row_by_hand(made):
    """The sampler's overlap with the exact lists, for both seeds."""
    evaluation, rows = made
    (row,) = [r for r in rows if (r["method"], r["mode"]) == ("beam_search", "relaxed")]
    users, batches = evaluation.some, evaluation.batches(evaluation.some)
    exact = decode_users(evaluation.decoders.build(Setting.beam_search(3, "trie")), batches, 4)
    setting = Setting.beam_search(3, "trie").searching(mode="relaxed")
    shares = []
    for seed in range(2):
        keys = user_keys(evaluation.config.seed + seed, users.users)
        drawn = decode_users(evaluation.decoders.build(setting), batches, 4, keys)
        shares += [len(set(a) & set(b)) / 3 for a, b in zip(drawn.ids.tolist(), exact.ids.tolist(), strict=True)]
    assert row["overlap_with_exact"] == pytest.approx(np.mean(shares))
    assert 0 < np.mean(shares) < 1


def test_rows_are_remembered(made, monkeypatch):
    evaluation, rows = made
    monkeypatch.setattr(ModeTable, "_row", lambda *_: pytest.fail("measured twice"))
    assert ModeTable(evaluation, CONFIG).rows() == rows


def test_the_table_says_what_was_measured(made):
    _, rows = made
    table = mode_table(rows)
    assert len(table.rows) == len(rows)
    assert {len(cells) for cells in table.rows} == {len(table.header)}
    (tolerant,) = [cells for cells in table.rows if "tolerance 0.3" in cells[1]]
    assert tolerant[:5] == ["speculative, draft model", "strict, tolerance 0.3", "trie", "3", "all, 10"]


def test_below_float32_the_table_shows_how_far_lists_are(made):
    """Beside plain beam search and itself; a row without lists of the target's own has none."""
    figures = {"same_list": 0.5, "items_shared": 0.75, "score_gap": 0.25, "largest_gap": 0.5}
    _, rows = made
    assert "same list (itself)" not in mode_table(rows).header
    table = mode_table([rows[0] | {"agreement": figures | {"itself": figures}}, *rows[1:]])
    shown = [dict(zip(table.header, cells, strict=True)) for cells in table.rows]
    assert [cells["same list (itself)"] for cells in shown] == ["0.500 (0.500)", *["–"] * (len(rows) - 1)]
    assert shown[0]["items shared (itself)"] == "0.7500 (0.7500)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": ()}, r"^beams=\(\): expected one or more entries, each once$"),
        ({"norms": ()}, r"^norms=\(\): expected one or more"),
        ({"constraints": ()}, r"^constraints=\(\): expected one or more"),
        ({"widths": ()}, r"^widths=\(\): expected one or more"),
        ({"modes": ("strict", "strict")}, r"^modes=\('strict', 'strict'\): expected one or more entries, each once$"),
        ({"beams": (3, 5, 3)}, r"^beams=\(3, 5, 3\): expected one or more entries, each once"),
        ({"widths": ((4, 5), (4, 5))}, r"^widths=\(\(4, 5\), \(4, 5\)\): expected one or more"),
        ({"tolerances": (0.3, 0.3)}, r"^tolerances=\(0.3, 0.3\): expected none or more entries, each once"),
        ({"budgets": (6, 6)}, r"^budgets=\(6, 6\): expected none or more"),
        ({"main_beams": (4,)}, "main_beams=.4,.: K 4 is not among beams=.3,."),
        ({"constraints": ("levels",), "drafter": "popularity"}, "constraints holds 'levels' with drafter='popularity'"),
    ],
)
def test_tables_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mode 'sampling': expected some of strict, "):
        dataclasses.replace(CONFIG, modes=("strict", "sampling"))
    with pytest.raises(ValueError, match="norm 'tri': expected some of vocab, trie"):
        dataclasses.replace(CONFIG, norms=("tri",))
    with pytest.raises(ValueError, match="constraint 'level': expected some of trie, levels"):
        dataclasses.replace(CONFIG, constraints=("level",))
    with pytest.raises(ValueError, match=r"tuned has no setting for K 5: expected one for each of beams=\(3, 5\)"):
        dataclasses.replace(CONFIG, beams=(3, 5), tuned={3: Setting.beam_search(3, "vocab")})
