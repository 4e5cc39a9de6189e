"""The sentences on made-up rows, and on a real draft that knows nothing."""

import numpy as np
import pytest

from atspeed_jax.reporting import savings
from atspeed_jax.serving.settings import Setting

PRIOR = " (the popularity prior, which needs no model, 2.00)"


def row(drafter: str, k: int, saved: float, ws: float | None, **changes) -> dict:
    method = "beam_search" if drafter == "none" else "speculative"
    made = {"method": method, "drafter": drafter, "mode": "strict", "score_norm": "vocab", "K": k, "budget": None}
    made |= {"widths": [] if drafter == "none" else ["all", 64, 96], "target_calls_mean": 4 - saved}
    return made | {"accept_steps_mean": saved, "ws_vs_beam_search": ws} | changes


def words(*rows: dict) -> list[str]:
    return savings.in_words([row("none", rows[0]["K"], 0.0, 1.0), *rows])


def test_a_sentence_for_each_drafter():
    """Its rows at other widths, budgets and modes have a table."""
    rows = [row("draft", 20, 2.75, 1.5), row("popularity", 20, 2.0, 0.8), row("draft", 5, 3.0, 1.25)]
    rows += [row("popularity", 5, 2.25, 0.9), row("draft", 20, 1.0, 9.0, widths=[40, 40, 40])]
    rows += [row("draft", 20, 1.0, 9.0, budget=128), row("draft", 20, 1.0, 9.0, mode="relaxed")]
    assert words(*rows) == [
        "The draft model (widths all, 64, 96) saves 2.75 and 3.00 of 4 target calls per user at K = 20 and 5 (the "
        "popularity prior, which needs no model, 2.00 and 2.25); a list at batch 1 comes 1.50 and 1.25 times as fast "
        "as by plain beam search.",
        "The popularity prior (widths all, 64, 96) saves 2.00 and 2.25 of 4 target calls per user at K = 20 and 5; a "
        "list at batch 1 comes 0.80 and 0.90 times as fast as by plain beam search: this drafter saves calls here, but "
        "no time.",
    ]


@pytest.mark.parametrize(
    ("saved", "ws", "end"),
    [
        (2.75, 1.5, "1.50 times as fast as by plain beam search."),
        (2.75, 0.5, "0.50 times as fast as by plain beam search: this draft saves calls here, but no time."),
        (2.0, 1.5, "1.50 times as fast as by plain beam search."),
        (2.0, 0.5, "0.50 times as fast as by plain beam search: this draft saves nothing here."),
        (1.5, 1.0, "1.00 times as fast as by plain beam search: this draft saves nothing here."),
        (2.75, None, f"at K = 20{PRIOR}."),
        (1.5, None, f"at K = 20{PRIOR}: this draft saves nothing here."),
    ],
)
def test_what_a_draft_model_saves_beside_the_popularity_prior(saved, ws, end):
    sentence, _ = words(row("draft", 20, saved, ws), row("popularity", 20, 2.0, 0.8))
    assert sentence.startswith(f"The draft model (widths all, 64, 96) saves {saved:.2f} of 4 target calls per user")
    assert sentence.endswith(end)


def test_without_the_prior_a_draft_is_held_against_plain_beam_search():
    (sentence,) = words(row("draft", 20, 0.001, 0.5))
    assert sentence.endswith(": this draft saves nothing here.")
    assert "popularity" not in sentence
    (sentence,) = words(row("draft", 20, 0.5, 0.5))
    assert sentence.endswith(": this draft saves calls here, but no time.")
    (sentence,) = words(row("popularity", 20, 0.0, 0.5))
    assert sentence.endswith(": this drafter saves nothing here.")


def test_the_k_at_which_nothing_is_saved_are_named():
    sentence, _ = words(
        *(row(name, k, 2.0 + (k == 5) * (name == "draft"), 0.5) for name in savings.NAMES for k in (20, 5))
    )
    assert sentence.endswith("0.50 times as fast as by plain beam search: this draft saves nothing here at K = 20.")


def test_widths_that_a_larger_k_needs_are_named():
    wider = {"widths": ["all", 100, 100]}
    prior = [row("popularity", 20, 2.0, 0.5), row("popularity", 100, 1.0, 0.5, **wider)]
    sentence, _ = words(row("draft", 20, 2.5, 0.5), row("draft", 100, 1.5, 0.5, **wider), *prior)
    assert sentence.startswith("The draft model (widths all, 64, 96; all, 100, 100) saves 2.50 and 1.50 of 4 target")
    assert "which needs no model, 2.00 and 1.00)" in sentence


def test_nothing_measured_nothing_said():
    assert savings.in_words([]) == words(row("draft", 20, 1.0, 1.0, accept_steps_mean=None)) == []


def test_a_draft_with_permuted_code_rows_saves_nothing(small_run):
    """Counted on all users; times, which a test cannot rely on, are made up alike."""
    run = small_run.run
    evaluation, catalog, beams = run.measurements(), run.dataset.catalog, small_run.report["decoding"][0]["K"]
    codes = np.arange(catalog.first_code, catalog.vocab_size)
    order = np.arange(run.draft_model.vocab_size)
    order[codes] = np.random.default_rng(0).permutation(codes)
    assert run.draft_model.tied_embeddings  # the rows are read from and put out by
    ignorant = run.draft_params | {"embedding": run.draft_params["embedding"][order]}
    sentences = {}
    for name, params in (("trained", run.draft_params), ("ignorant", ignorant)):
        evaluation.decoders = run.decoders(params)
        kinds = [Setting.strict(drafter, beams, evaluation.decode) for drafter in ("draft", "popularity")]
        rows = [
            evaluation._row(setting, evaluation.everyone) for setting in (Setting.beam_search(beams, "vocab"), *kinds)
        ]
        assert [row["mismatched_users"] for row in rows] == [0, 0, 0]
        sentences[name] = savings.in_words([row | {"ws_vs_beam_search": 0.75} for row in rows])
    assert sentences["ignorant"][0].endswith("by plain beam search: this draft saves nothing here.")
    assert sentences["trained"][0].endswith("by plain beam search: this draft saves calls here, but no time.")
    assert sentences["trained"][1] == sentences["ignorant"][1]
