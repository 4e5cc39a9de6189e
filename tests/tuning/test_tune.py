import dataclasses
import json

import numpy as np
import pytest

from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.config import resolve_widths
from atspeed_jax.reporting.tables import tune_table
from atspeed_jax.serving.settings import Setting
from atspeed_jax.tuning import tune as T
from atspeed_jax.tuning.candidates import searches, widest
from atspeed_jax.tuning.decide import Bootstrap
from atspeed_jax.tuning.round_times import Curve, RoundTimes

CONFIG = T.TuneConfig(
    beams=(4, 12),
    batch_sizes=(2,),
    drafters=("draft", "popularity"),
    finalists=2,
    check=(("all", 10), (3, 3)),
    batches=2,
    users=4,
    repeats=1,
    bootstrap=Bootstrap(samples=50),
)

# Every node costs much, so what is expected to be fastest is narrow, and none of what is to be checked.
NARROW = Curve((0.0, 10.0), (1.0, 2.0))
TIMES = RoundTimes(NARROW, NARROW, Curve((4,), (1.0,)), 0.1, NARROW, NARROW)


def test_calls_are_counted_on_more_users_than_are_timed():
    """Batches at equal distances, since they are in order of length, with rows that are numbered anew."""
    config = dataclasses.replace(CONFIG, users=5, batches=2)
    rows = np.random.default_rng(0).permutation(18).reshape(9, 2)
    pairs = [{"row": row, "number": number} for number, row in enumerate(rows)]
    pairs[3]["row"] = np.array([rows[3, 0], -1])  # a filler

    def numbers(config, pairs):
        chosen = config.timed(pairs)
        order = np.concatenate([pair["row"] for pair in chosen])
        assert sorted(order[order >= 0].tolist()) == list(range((order >= 0).sum()))
        known = np.concatenate([pairs[pair["number"]]["row"] for pair in chosen])
        assert (np.argsort(order) == np.argsort(known)).all()
        return [pair["number"] for pair in chosen]

    assert numbers(config, pairs) == [0, 3, 6]
    assert numbers(dataclasses.replace(config, batches=4), pairs) == [0, 2, 4, 6]
    assert numbers(config, pairs[:1]) == [0]


@pytest.fixture(scope="module")
def tuned(small_run):
    run, said = small_run.run, []
    shape = dataclasses.replace(run.config.evaluate.batch_shape(run.config.data.history), batch_size=2)
    batches = (
        held_out_users(run.dataset, "valid").sample(8, 0).batches(run.dataset, shape)[::-1]
    )  # 4, of which 2 are timed
    decoders = run.decoders(run.draft_params)
    given = {"times": dict.fromkeys(CONFIG.drafters, TIMES), "say": said.append}
    found = [T.choose(decoders, batches, beams, "vocab", CONFIG, **given) for beams in CONFIG.beams]
    for one in found:
        assert one.setting.label == one.row["choice"]
    return [one.row for one in found], said, run


def test_the_few_best_are_timed_beside_plain_beam_search_and_what_is_to_be_checked(tuned):
    rows, said, run = tuned
    assert [(row["K"], row["batch"]) for row in rows] == [(4, 2), (12, 2)]
    assert [len(row["settings"]) for row in rows] == [1 + 2 + 2, 1 + 2 + 0]
    assert sum("left out: width 3" in text for text in said) == 2 * 2  # K=4 and 12, with both drafters
    assert sum("raise it in --widths, or leave 12 out of --beams" in text for text in said) == 2 * 2
    for row in rows:
        alone, *others = row["settings"]
        assert alone["label"] == Setting.beam_search(row["K"], "vocab").label
        assert alone["ratio"] == alone["ratio_low"] == alone["ratio_high"] == 1
        assert alone["target_calls"] == 3
        assert all(1 <= other["target_calls"] <= 3 and other["time_ms"] > 0 for other in others)
        assert [other["expected_ms"] is None for other in others] == [False] * 2 + [True] * (len(others) - 2)
        assert row["choice"] in [entry["label"] for entry in row["settings"][:3]]
        wide = widest(row["K"], "vocab", run.decoders(None).prefixes["vocab"])
        assert row["searched"] == 2 * len(list(searches(wide))) > 2  # with both drafters
        assert row["reason"]
        assert row["slower_than_best"] >= 0
    assert rows[0]["checked"]["settings"] == 2
    assert rows[0]["checked"]["slower"] > -1
    json.dumps(rows, allow_nan=False)
    table = tune_table(rows)
    assert len(table.rows) == 8
    assert [cells[-1] for cells in table.rows].count("chosen") == 2


def test_the_grid_to_check_is_every_combination_that_can_work(small_run):
    decoders, said = small_run.run.decoders(None), []
    config = dataclasses.replace(CONFIG, check=(("all", "all"), (2, 9)), grid=3, drafters=("popularity",))
    settings = T.checked(decoders, 5, "vocab", config, said.append)
    assert len(set(settings)) == len(settings)
    assert len(said) == 1
    prefixes = decoders.prefixes["vocab"]
    assert resolve_widths(("all", "all"), prefixes, 5) in [setting.search.widths for setting in settings]
    assert len(settings) >= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": (4, 12, 4)}, r"beams=\(4, 12, 4\): expected one or more entries, each once"),
        ({"beams": ()}, r"beams=\(\): expected one or more entries, each once"),
        ({"drafters": ("none",)}, "drafter 'none'"),
        ({"finalists": 0}, "finalists=0: expected a whole number, at least 1"),
    ],
)
def test_settings_that_cannot_be_tuned(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)
