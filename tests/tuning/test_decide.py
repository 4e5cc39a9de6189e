import numpy as np
import pytest

from atspeed_jax.tuning import decide as D

BOOTSTRAP = D.Bootstrap(samples=50)


def steady(*values):
    return np.array(values, float)


def test_the_least_mean_time_is_chosen():
    times = {"alone": steady(10, 12, 11), "slow": steady(9, 9, 9), "fast": steady(5, 6, 5), "spiky": steady(4, 4, 20)}
    assert D.fastest_safe(times, "alone", BOOTSTRAP) == "fast"


def test_plain_beam_search_where_nothing_is_surely_as_fast():
    slower = {"alone": steady(10, 10, 10), "slow": steady(11, 11, 11)}
    assert D.fastest_safe(slower, "alone", BOOTSTRAP) == "alone"
    doubtful = {"alone": steady(10, 10, 10), "lucky": steady(1, 20, 1)}  # less time in all, but not most of the time
    assert doubtful["lucky"].mean() < 10
    assert D.fastest_safe(doubtful, "alone", BOOTSTRAP) == "alone"


@pytest.mark.parametrize(
    ("lucky", "choice", "slower", "rounds"),
    [
        ([(10, 10, 10)], "safe", 0.0, 1),  # timed again, it was luck
        ([(5, 5, 5)], "lucky", 0.0, 1),  # or speed
        ([(1, 20, 1)] * D.AGAIN, "safe", 9 / (22 / 3) - 1, D.AGAIN),  # or undecided to the end
    ],
)
def test_a_choice_slower_than_the_fastest_is_timed_again_beside_it(lucky, choice, slower, rounds):
    times = {"alone": steady(10, 10, 10), "slow": steady(9.5, 9.5, 9.5), "safe": steady(9, 9, 9)}
    asked = []

    def time_again(labels):
        asked.append(labels)
        return {label: times[label] for label in labels if label != "lucky"} | {"lucky": steady(*lucky.pop(0))}

    last_times, *found = D.confirmed_choice(times | {"lucky": steady(1, 20, 1)}, "alone", BOOTSTRAP, time_again)
    assert found == [choice, pytest.approx(slower)]
    assert asked == rounds * [["alone", "safe", "lucky"]]
    assert set(last_times) == {"alone", "safe", "lucky"}
    assert D.confirmed_choice(times, "alone", BOOTSTRAP, time_again)[1:] == ("safe", 0.0)
    assert len(asked) == rounds


def test_ratio_bounds():
    alone = np.random.default_rng(0).uniform(5, 9, 40)
    assert D.ratio_bounds(alone, alone / 2, BOOTSTRAP) == pytest.approx((2, 2))
    noisy = alone / np.random.default_rng(1).uniform(1, 3, 40)
    low, high = D.ratio_bounds(alone, noisy, BOOTSTRAP)
    assert 1 < low < np.median(alone / noisy) < high < 3


def row(label, calls, ratio):
    return {"label": label, "target_calls": calls, "ratio": ratio, "ratio_low": ratio - 0.1, "ratio_high": ratio + 0.1}


def test_the_reason_says_what_is_saved_or_why_nothing_is():
    rows = [row("plain", 4.0, 1.0), row("wide", 1.1, 1.3), row("narrow", 1.5, 1.2)]
    assert D.reason(rows, "wide") == (
        "wide takes 1.10 target calls instead of 4.00 and is 1.30 times as fast as plain beam search (95 % interval "
        "1.20 to 1.40)"
    )
    rows = [row("plain", 4.0, 1.0), row("wide", 1.1, 0.8), row("narrow", 2.5, 0.9)]
    assert "1.50 saved calls cost more time than they save; the best speculative setting, narrow," in D.reason(
        rows, "plain"
    )
    rows = [row("plain", 4.0, 1.0), row("narrow", 4.0, 0.5)]
    assert "the draft saves no call; the best speculative setting, narrow, is 0.50" in D.reason(rows, "plain")
    assert D.reason(rows[:1], "plain") == "plain beam search: no speculative setting can hold K"
