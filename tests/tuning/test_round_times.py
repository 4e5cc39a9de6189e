import dataclasses

import numpy as np
import pytest

from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.tuning import round_times as R

SEARCH = SearchConfig((5, 8, 12), 3, "vocab", beams=4)


def line(start, slope):
    return R.Curve((0.0, 10.0), (start, start + 10 * slope))


TIMES = R.RoundTimes(line(10, 1), line(5, 1), line(3, 0.5), 2.0, line(0.5, 0.1), line(0.25, 0.1))


def test_a_curve_is_linear_between_sizes_and_goes_on_outside():
    curve = R.Curve((2, 4, 8), (1.0, 2.0, 6.0))
    assert [curve(nodes) for nodes in (2, 3, 6, 8, 10)] == [1, 1.5, 4, 6, 8]
    assert curve(1) == 0.5
    assert curve(0) == 0
    assert R.Curve((4,), (3.0,))(100) == 3
    assert R.Curve((2, 4), (5.0, 4.0))(8) == 5  # noise: no call is faster for reading more


def test_seconds_of_a_search_are_the_sum_of_its_parts():
    first = (10 + 25) + 2 + (0.5 + 0.5) + (0.5 + 0.8)
    later = (5 + 24) + (0.25 + 0.4) + (0.25 + 0.8)
    assert R.search_seconds(TIMES, SEARCH, np.array([0, 2])) == pytest.approx([first, first + 2 * later])
    short = dataclasses.replace(SEARCH, gamma=1)  # the draft reads the prompt alone in round 1
    assert R.search_seconds(TIMES, short, np.array(0)) == pytest.approx(10 + 5 + 2 + 1.0)
    assert R.plain_seconds(TIMES, 4, 4) == pytest.approx(10 + 3 * 5)


def test_later_rounds_of_a_batch():
    calls = np.array([[1, 1, 1, 1], [1, 4, 1, 1], [2, 2, 2, 2], [3, 1, 2, 2]])
    assert R.later_passes(calls, 4).tolist() == [0, 3, 1, 2]  # the slowest row rules
    assert R.later_passes(calls, 1).tolist() == [0, 3, 4, 4]
    assert R.later_passes(calls, 2).tolist() == [0, 3, 2, 2]
    assert R.later_passes(calls[:, :1], 1).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("drafter", ["draft", pytest.param("popularity", marks=pytest.mark.slow)])
def test_the_parts_are_measured(small_run, drafter):
    run = small_run.run
    tokens = np.full((2, 13), 1)
    prompt = prompt_of({"tokens": tokens, "valid": np.ones(tokens.shape, bool)})
    search = SearchConfig((4, 10), 2, "vocab", beams=3)
    times = R.measure(run.decoders(run.draft_params), drafter, search, prompt, (3, 10))
    assert times.target_first.nodes == (6, 14)  # level 1 has four prefixes
    assert times.target_later.nodes == (6, 14)
    assert times.draft_level.nodes == (3, 4)
    assert min(times.target_first.seconds + times.target_later.seconds) > 0
    assert R.plain_seconds(times, 3, 3) > 0
