"""One sentence per K on made-up rows."""

import pytest

from atspeed_jax.reporting.headlines import headlines
from reports import decoding_row


def plain(k: int = 5, **changes) -> dict:
    return decoding_row("beam_search", "none", k, 4.0, **changes)


def draft(k: int = 5, calls: float = 1.0625, ws: float | None = 1.31, interval=(1.25, 1.37), **changes) -> dict:
    about = {"ws_vs_beam_search": ws, "ws_interval": interval and list(interval), **changes}
    return decoding_row("speculative", "draft", k, calls, **about)


def only(*rows: dict):
    (headline,) = headlines(rows)
    return headline


def test_speculation_that_pays():
    headline = only(plain(), draft())
    assert headline.sentence == "K = 5: the same lists in 1.1 calls instead of 4, 1.3x as fast here."
    assert (headline.label, headline.figure, headline.verdict) == ("K = 5", "1.3x", "faster")


def test_one_headline_per_k_smallest_first():
    found = headlines([plain(20), draft(20), plain(1), draft(1), plain(300)])
    assert [headline.label for headline in found] == ["K = 1", "K = 20"]


@pytest.mark.parametrize(
    ("ws", "interval", "verdict", "sentence"),
    [
        (0.82, (0.8, 0.85), "slower", "plain beam search is faster here: speculation gives the same lists in 1.1 calls "
         "instead of 4, but 0.82x as fast."),
        (1.2, (0.9, 1.6), "alike", "plain beam search is as fast here: speculation gives the same lists in 1.1 calls "
         "instead of 4, 1.20x as fast (95 % interval 0.90 to 1.60)."),
        (1.01, (1.005, 1.02), "alike", "plain beam search is as fast here: speculation gives the same lists in 1.1 "
         "calls instead of 4, 1.01x as fast (95 % interval 1.00 to 1.02)."),
        (1.01, None, "alike", "plain beam search is as fast here: speculation gives the same lists in 1.1 calls "
         "instead of 4, 1.01x as fast."),
        (None, None, "untimed", "the same lists in 1.1 calls instead of 4; no time was measured."),
    ],
)  # fmt: skip
def test_speculation_that_does_not_pay(ws, interval, verdict, sentence):
    headline = only(plain(), draft(ws=ws, interval=interval))
    assert headline.sentence == f"K = 5: {sentence}"
    assert headline.verdict == verdict


def test_lists_that_differ_get_no_speed_up():
    headline = only(plain(), draft(mismatched_users=3))
    assert headline.verdict == "wrong"
    assert headline.sentence == (
        "K = 5: the lists of 3 users are not those of plain beam search, so no speed-up is claimed."
    )
    assert "1.3" not in headline.figure + headline.sentence


def test_the_tuned_row_leads():
    fast, tuned = draft(ws=2.0, interval=(1.9, 2.1)), draft(calls=1.5, tuned=True, widths=[2, 2, 2])
    assert only(plain(), fast, tuned).sentence == (
        "K = 5: the same lists in 1.5 calls instead of 4, 1.3x as fast here."
    )


def test_a_tuner_that_chose_plain_beam_search():
    headline = only(plain(), draft(ws=0.7, interval=(0.6, 0.8)), plain(tuned=True))
    assert headline.sentence == (
        "K = 5: plain beam search is the fastest way here, though speculation gives the same lists in 1.1 calls "
        "instead of 4."
    )
    assert (headline.figure, headline.verdict) == ("plain", "alike")


def test_without_a_speed_up_the_draft_model_is_spoken_of():
    prior = {**draft(calls=2.0, ws=0.9, interval=(0.88, 0.92)), "drafter": "popularity"}
    assert only(plain(), prior, draft(ws=0.8, interval=(0.6, 1.1))).sentence == (
        "K = 5: plain beam search is at least as fast here: speculation gives the same lists in 1.1 calls instead of "
        "4, 0.80x as fast (95 % interval 0.60 to 1.10)."
    )
    prior |= {"ws_vs_beam_search": 1.2, "ws_interval": [1.1, 1.3]}
    assert only(plain(), prior, draft(ws=0.8, interval=(0.6, 1.1))).sentence == (
        "K = 5: the same lists in 2 calls instead of 4, 1.2x as fast here without a draft model."
    )


def test_the_surest_of_several_rows_counts():
    unsure = draft(calls=1.5, ws=1.6, interval=(0.9, 2.0))
    relaxed = draft(calls=1.0, ws=3.0, interval=(2.9, 3.1), mode="relaxed")
    assert only(plain(), unsure, relaxed, draft()).figure == "1.3x"


@pytest.mark.parametrize(("calls", "text"), [(1.0, "1 call"), (1.007, "1.0 calls"), (1.323, "1.3 calls")])
def test_calls_are_rounded_and_a_whole_number_is_whole(calls, text):
    assert f"in {text} instead of 4, " in only(plain(), draft(calls=calls)).sentence
    assert f"in {text} instead of 4, " in only(draft(calls=calls)).sentence  # by the calls that it saves
